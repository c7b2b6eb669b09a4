"""Personal data out of prompts before they are stored, with Microsoft's presidio and no model download.

    pip install presidio-analyzer presidio-anonymizer
    [prompts]
    redact = "docs/examples/redact.py:redact"

Its pattern recognisers know e-mail addresses, phone numbers, card and bank numbers, and addresses of machines by their form and
check digits. Names and places need a language model on top: see presidio's documentation.
"""

from presidio_analyzer import RecognizerResult
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    PhoneRecognizer,
)
from presidio_anonymizer import AnonymizerEngine

RECOGNISERS = (EmailRecognizer(), PhoneRecognizer(), CreditCardRecognizer(), IbanRecognizer(), IpRecognizer())
ENGINE = AnonymizerEngine()


def redact(text: str) -> str:
    """The text with `<EMAIL_ADDRESS>` and the like where personal data was."""
    found: list[RecognizerResult] = []
    for one in RECOGNISERS:
        found += one.analyze(text, one.supported_entities, None) or []
    return str(ENGINE.anonymize(text, found).text)  # type: ignore[arg-type]  # the two packages' own classes differ in name alone
