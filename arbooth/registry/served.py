"""What the registry holds of a subject: adapter and a reference to its base, as an MLflow pyfunc model.

MLflow runs this file when the model is loaded ("models from code"): nothing is unpickled.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError

# Of one call: requests, and pictures of all of them.
MOST = 64


class Request(BaseModel):
    """One prompt; unknown names are refused. What is not given, or null, is as when the subject was judged."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    prompt: str = Field(min_length=1, max_length=2000)
    n: int = Field(1, ge=1, le=MOST)
    seed: int = Field(0, ge=0, lt=2**63)
    guidance: float | None = None
    prompt_guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class Answer(BaseModel):
    """One painted picture: the PNG's bytes are base64 text."""

    prompt: str
    seed: int
    index: int
    png: str


class Refusal(MlflowException):
    """Bad input, told in one sentence: MLflow's server would put the whole request before it."""

    @property
    def message(self) -> str:
        return self._sentence

    @message.setter
    def message(self, sentence: str) -> None:
        self._sentence = getattr(self, "_sentence", sentence)


class SubjectModel(PythonModel):
    """Paints one subject: a list of requests (or a DataFrame) in, `Answer` dictionaries out."""

    def load_context(self, context) -> None:
        from arbooth.project import Project
        from arbooth.registry.load import load_registered

        self.painter, self.subject = load_registered(
            Project(), Path(context.artifacts["adapter"]), Path(context.artifacts["base"])
        )

    def predict(self, context, model_input, params=None) -> list[dict]:
        """Paint every request; pictures do not depend on what else is asked. Refuses with one sentence (400)."""
        from arbooth.errors import InputError

        try:
            if params:
                raise InputError("parameters belong into each request, beside its prompt")
            return [answer for request in read_requests(model_input) for answer in self._paint(request)]
        except InputError as error:
            raise Refusal.invalid_parameter_value(str(error)) from None

    def _paint(self, request: Request) -> list[dict]:
        from arbooth.data.pictures import png

        given = request.model_dump(exclude={"prompt", "n", "seed"})
        pairs = [(request.prompt, index) for index in range(request.n)]
        paintings = self.painter.paint(pairs, request.seed, self.painter.sampling(**given), self.subject)
        return [
            Answer(
                prompt=request.prompt,
                seed=request.seed,
                index=index,
                png=base64.b64encode(png(painting.pixels, painting.record)).decode(),
            ).model_dump()
            for (_, index), painting in zip(pairs, paintings)
        ]


def read_requests(model_input) -> list[Request]:
    """Requests of whatever form MLflow hands over, all checked before anything is painted.

    Raises:
        InputError: too many, or one is invalid; its own words are not repeated.
    """
    from arbooth.errors import InputError

    if hasattr(model_input, "to_dict"):  # a DataFrame, where NaN is what a row does not say
        records = model_input.to_dict("records")
        rows = [{k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))} for row in records]
    else:
        rows = model_input.tolist() if hasattr(model_input, "tolist") else model_input
    rows = rows if isinstance(rows, list) else [rows]
    if not 1 <= len(rows) <= MOST:
        raise InputError(f"{len(rows)} requests in one call: send 1 to {MOST}")
    requests = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"request {number} is no table with a prompt: see docs/registry.md")
        plain = {str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
        given = {k: v for k, v in plain.items() if v is not None}
        try:
            requests.append(Request.model_validate(given))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:60]
            raise InputError(f"request {number}: {where}: {first['msg']}") from None
    if sum(request.n for request in requests) > MOST:
        raise InputError(f"{sum(request.n for request in requests)} pictures in one call: ask for at most {MOST}")
    return requests


mlflow.models.set_model(SubjectModel())
