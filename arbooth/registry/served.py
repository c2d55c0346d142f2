"""What the registry holds of a subject: adapter and a reference to its base, as an MLflow pyfunc model.

MLflow runs this file when the model is loaded ("models from code"): nothing is unpickled.
"""

from __future__ import annotations

import base64
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """One prompt; unknown names are refused. What is not given is as it was when the subject was judged."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=2000)
    n: int = Field(1, ge=1, le=64)
    seed: int = Field(0, ge=0)
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class Answer(BaseModel):
    """One painted picture: the PNG's bytes are base64 text."""

    prompt: str
    seed: int
    index: int
    png: str


class SubjectModel(PythonModel):
    """Paints one subject; answers are `Answer` dictionaries."""

    def load_context(self, context) -> None:
        from arbooth.project import Project
        from arbooth.registry.load import load_registered

        self.painter, self.subject = load_registered(
            Project(), Path(context.artifacts["adapter"]), Path(context.artifacts["base"])
        )

    def predict(self, model_input: list[Request]) -> list[dict]:
        """Paint every request; pictures do not depend on what else is asked."""
        from arbooth.data.pictures import png

        answers = []
        for request in model_input:
            given = request.model_dump(include={"guidance", "temperature", "top_k", "top_p"})
            pairs = [(request.prompt, index) for index in range(request.n)]
            sampling = self.painter.sampling(**given)
            for (prompt, index), painting in zip(
                pairs, self.painter.paint(pairs, request.seed, sampling, self.subject)
            ):
                picture = base64.b64encode(png(painting.pixels, painting.record)).decode()
                answers.append(Answer(prompt=prompt, seed=request.seed, index=index, png=picture).model_dump())
        return answers


mlflow.models.set_model(SubjectModel())
