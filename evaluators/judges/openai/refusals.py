"""What a refusal means: whether it ends the run, this sample, or only this try. Decided on the server's own words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evaluators.errors import RunError
from evaluators.judges import CallError
from evaluators.judges.openai.told import Told


def _pattern(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


_MONEY = _pattern(
    r"insufficient[ _]+(?:\w+[ _]+){0,3}(?:quota|balance|credits?|funds?)",
    r"(?:balance|credits?|funds?)\b.{0,40}\b(?:too low|insufficient|not enough|exhausted|depleted|used up|negative)",
    r"(?:not enough|no|out of|run out of|ran out of) (?:\w+ ){0,2}(?:balance|credits?|funds?)\b",
    r"payment required|billing_hard_limit|billing hard limit|billing_not_active|exceeded_current_quota",
    r"check your plan and billing|arrear|overdue|余额不足|欠费|余额已|充值",
)
_ACCOUNT = _pattern(
    r"\b(?:account|organi[sz]ation|project)\b.{0,40}\b"
    r"(?:deactivated|suspended|disabled|terminated|blocked|banned|restricted)",
)
_FILTERED = _pattern(
    r"content[ _-]?(?:filter|policy|management|moderation|exists risk|safety|violat)|usage (?:guideline|polic)",
    r"\bsafety\b|safety_|responsible ?ai|\bflagged\b|moderation|moderated|data_?inspection|inappropriate|prohibited",
    r"sensitive (?:content|words?|information)|\bharmful\b|guardrails?\b|invalid_prompt",
    r"blocked (?:by|due to|because)|敏感|不安全|违规",
)
_KEY = _pattern(
    r"\b(?:api|access|secret)[ _-]?(?:key|token)s?\b|\bcredentials?\b|authenticat|unauthori[sz]ed|authori[sz]ation",
    r"\b(?:invalid|expired|missing|wrong|revoked) (?:key|token)\b|invalid_api_key|permission|subscription",
    r"(?:have|has|grant\w*|without) (?:no )?access|access to (?:this|the) model",
    r"(?:country|region)\b.{0,60}\bnot supported",
)
_BAD_KEY = _pattern(
    r"(?:api|access)[ _-]?key\b.{0,20}\b(?:not valid|invalid|expired|missing)|api_key_invalid|invalid_api_key",
    r"\b(?:invalid|incorrect|wrong|expired|missing) (?:api|access)[ _-]?key",
)
_MODEL = _pattern(
    r"model_not_(?:found|available|supported|exist)|model_?not_?exist|invalid_model|unknown_model|deploymentnotfound",
    r"\b(?:unknown|invalid|no such|unrecogni[sz]ed) model\b|\bnot a valid model\b",
    r"\bmodels?\b.{0,120}\b(?:(?:does|do) not exist|doesn't exist|not exist|not found|is not available)",
    r"\bmodels?\b.{0,120}\b(?:no longer available|decommissioned|has been (?:removed|retired|deprecated))",
)
_CONTEXT = _pattern(
    r"context[ _-]?(?:length|size|window|limit)|exceed_context|max(?:imum)?[ _]model[ _]len|\bn_ctx\b",
    r"(?:prompt|input|messages?|request|conversation)\b.{0,60}\b(?:too long|too large|longer than|exceed\w*)\b.{0,80}"
    r"\b(?:tokens?|length|limit|context|maximum|characters)",
    r"prompt is too long|input is too long|too many (?:input |prompt )?tokens|reduce the length",
    r"max_seq_len|input length should|inputs?\W{1,3}tokens? ?\+",
    r"string_above_max_length|request too large|must be reduced in order to run",
    r"token (?:count|limit).{0,60}exceed|exceed\w*.{0,60}\btokens? limit",
)
_RATE = _pattern(
    r"rate[ _-]?limit|too many requests|overloaded|slow[ _]down|requests? per (?:minute|second|day)",
    r"resource_exhausted|\bat capacity\b|throttl",
)
_FAILED_SCHEMA = _pattern(r"generate json|json_validate_failed|failed_generation")


@dataclass(frozen=True)
class Asked:
    """Whom an error is told of."""

    judge: str
    url: str
    key_variable: str | None
    """None: no key is sent."""
    has_key: bool
    prompt: str

    @property
    def key_remedy(self) -> str:
        """What to do about a key that is refused."""
        if self.key_variable is None:
            return f"no key was sent to {self.url}: name its variable, as in {self.judge}@{self.url}#MY_KEY"
        if not self.has_key:
            return f"no key was sent: set {self.key_variable}, or name another variable (--key-env)"
        return f"check {self.key_variable}, or name another variable (--key-env)"


_GOES_ON = "; the same command goes on"


def final(told: Told, line: str, asked: Asked) -> Exception | None:
    """The error of a refusal whose words or status leave no doubt; None for all others.

    `line` is what people are shown of it, without the key; it decides nothing.
    """
    status = told.status
    refused = 400 <= status < 500

    def says(pattern: re.Pattern[str]) -> bool:
        return told.says(pattern, asked.prompt)

    throttled = status == 429 and told.says(
        _pattern("resource_exhausted|retrydelay|per_?minute|per_?day"), asked.prompt
    )
    if status == 402 or (refused and says(_MONEY) and not throttled):
        return RunError(f"{asked.judge}: the account has no money left ({line}){_GOES_ON}")
    if status in (400, 401, 403) and says(_ACCOUNT):
        return RunError(f"{asked.judge}: the server refuses the account ({line}){_GOES_ON}")
    if status in (400, 403, 422, 451) and says(_FILTERED):
        return CallError(f"withheld by a content filter ({line})", kind="moderated")
    if status == 401 or (status in (400, 422) and says(_BAD_KEY)):
        return key_refused(line, asked)
    if status == 404 or (refused and status not in (403, 429) and ("model" in told.parameters or says(_MODEL))):
        return RunError(f"{asked.judge}: {line}; check the model's name and the URL {asked.url} (--base-url){_GOES_ON}")
    if status == 413 or ((status in (400, 422, 429) or status >= 500) and says(_CONTEXT)):
        return CallError(
            f"the prompt does not fit the model ({line}); --context-tokens shortens prompts to a size", kind="context"
        )
    return None


def other(told: Told, line: str, asked: Asked) -> Exception | None:
    """The error of any other refusal; None for a 403 that does not say what it is about."""
    status = told.status
    if status == 403:
        if not told.says(_KEY, asked.prompt):
            return None
        return key_refused(line, asked)
    if status == 405 or 300 <= status < 400:
        return RunError(f"{asked.judge}: {line}; check the URL {asked.url} (--base-url){_GOES_ON}")
    if status in (429, 529) or ((status >= 500 or not told.has_status) and told.says(_RATE, asked.prompt)):
        return CallError(line, kind="rate", retry_after_s=told.retry_after_s)
    if status >= 500:
        return CallError(line, kind="outage", retry_after_s=told.retry_after_s)
    again = status in (408, 409, 425) or not told.has_status
    return CallError(line, retry=again, retry_after_s=told.retry_after_s)


def key_refused(line: str, asked: Asked) -> RunError:
    """No call of the run can succeed with this key."""
    return RunError(f"{asked.judge}: the server refuses the key ({line}); {asked.key_remedy}{_GOES_ON}")


def schema_lasts(told: Told, prompt: str) -> bool:
    """Whether the server takes no schema at all; else it was this reply that failed under it."""
    return not told.says(_FAILED_SCHEMA, prompt)
