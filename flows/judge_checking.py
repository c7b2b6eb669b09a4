"""The check of a judge on labelled responses as a flow, to be repeated on a schedule: does the judge still agree?"""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.homes import open_home
from flows.judge_check import Draw, check_judge
from rlrf.judge_checking import Columns
from rlrf.judge_config import AnyJudge, MathJudge


@flow(name="judge-check", flow_run_name="judge check on {file}", persist_result=False, result_serializer="json")
def judge_check(
    file: Path,
    prompt: str = "prompt",
    response: str = "response",
    label: str = "label",
    reference: str | None = None,
    judge: AnyJudge = MathJudge(),  # noqa: B008
    aspect: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    home: Path | None = None,
) -> dict[str, Any]:
    """Judge the labelled responses in `file` and say how far the judge agrees with the labels.

    `prompt`, `response`, `label`, `reference`: the file's columns. `limit`: judge a seeded draw of this many rows.
    `home`: keep the result in this home's store, where audits of pairs use it.
    """
    store = open_home(home) if home is not None else None
    result = check_judge(judge, file, Columns(prompt, response, label, reference, ()), aspect, Draw(limit, seed), store)
    logger = get_run_logger()
    for name, one in result["aspects"].items():
        logger.info("%s: agreement %s over %s responses", name, one["agreement"], one["n"])
    return result
