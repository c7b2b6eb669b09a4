"""Sets: which rows a stage planned and got, and the digest of what they hold."""

from __future__ import annotations

from collections.abc import Iterable

from storage.store import Store, insert

_CONTENTS = {
    "prompts": """SELECT json_array(p.prompt_id, p.messages, p.reference) AS content
        FROM members m JOIN prompts p ON p.prompt_id = m.member_id WHERE m.set_key = $set""",
    "responses": """SELECT json_array(r.response_id, r.finish_reason, p.reference, r.text) AS content
        FROM members m JOIN responses r ON r.response_id = m.member_id JOIN prompts p USING (prompt_id)
        WHERE m.set_key = $set""",
    "judgements": """SELECT json_array(t.response_id, t.aspect, t.rating, t.critique) AS content
        FROM members m JOIN ratings t ON t.response_id = m.member_id WHERE m.set_key = $set AND t.judge_key = $judge
        UNION ALL SELECT json_array(j.response_id, j.score, j.reason)
        FROM members m JOIN judgements j ON j.response_id = m.member_id
        WHERE m.set_key = $set AND j.judge_key = $judge""",
    "pairs": """SELECT json_array(chosen_id, rejected_id, position) AS content FROM pairs WHERE pair_set = $set""",
}
"""What a set holds, row by row. JSON says where a value ends: 'ab' and 'c' are not 'a' and 'bc', and none is not ''."""


def add_members(store: Store, set_key: str, member_ids: Iterable[str]) -> None:
    """Write which rows belong to a set; may be repeated."""
    with store.connect() as connection:
        insert(connection, "members", [{"set_key": set_key, "member_id": one} for one in member_ids])


def copy_members(store: Store, from_key: str, to_key: str) -> None:
    """Give a set the members of another; may be repeated."""
    with store.connect() as connection:
        connection.execute(
            """INSERT INTO members SELECT $to::UUID, member_id FROM members m WHERE set_key = $from
               AND NOT EXISTS (FROM members t WHERE t.set_key = $to AND t.member_id = m.member_id)""",
            {"to": to_key, "from": from_key},
        )


def members(store: Store, set_key: str) -> list[str]:
    """Ids of a set, sorted."""
    rows = store.query("SELECT member_id FROM members WHERE set_key = ? ORDER BY member_id", [set_key])
    return [row["member_id"] for row in rows]


def prompts_behind(store: Store, set_key: str) -> list[str]:
    """Ids of the prompts that a set of responses answers, sorted."""
    sql = """SELECT DISTINCT r.prompt_id FROM members m JOIN responses r ON r.response_id = m.member_id
             WHERE m.set_key = ? ORDER BY r.prompt_id"""
    return [row["prompt_id"] for row in store.query(sql, [set_key])]


def digest(store: Store, kind: str, set_key: str, judge_key: str | None = None) -> str:
    """Order-free hash of a set's contents (`kind`: prompts, responses, judgements or pairs), in UUID text form.

    The XOR of 128-bit hashes needs no sort, so it stays fast at millions of rows.
    """
    parameters = {"set": set_key} | ({"judge": judge_key} if judge_key else {})
    number = store.value(f"SELECT bit_xor(md5_number(content)) FROM ({_CONTENTS[kind]})", parameters) or 0
    text = f"{int(number):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
