"""Everything -> MLflow runs and registered versions. Idempotent, so it may run at every `dvc repro`."""

from __future__ import annotations

from arbooth.data.bases import load_base
from arbooth.settings import settings
from arbooth.tracking.ledger import Files, Published, publish


def publish_subject(params, subject: str, reads) -> Published:
    """Publish one subject's files."""
    here = settings()
    own = params.subjects[subject]
    files = Files(
        adapter=reads["adapters"] / f"{subject}.safetensors",
        curves=reads["curves"] / subject,
        sheet=reads["sheets"] / f"{subject}.png",
        metrics=reads["metrics"] / f"{subject}.json",
        prompts=reads["prompts"] / f"{subject}.csv",
    )
    record = {
        "base": params.base,
        "seed": params.seed,
        "compute": params.compute,
        "subject": own.model_dump(by_alias=True, exclude={"overrides", "crops"}),
        "method": params.methods[params.finetune.method].model_dump(),
        **{
            name: getattr(params, name).model_dump()
            for name in ("picture", "templates", "prior", "finetune", "generate", "evaluate")
        },
    }
    base = load_base(params.base, here.project, here.path("weights"))
    noun = params.classes[own.class_name].noun
    return publish(subject, noun, files, base, record, params.publish, params.publish.experiment, here.tracking_uri)


def run(params, key, reads, writes) -> None:
    for subject in params.subjects:
        print(describe(publish_subject(_with_overrides(params, subject), subject, reads)))


def describe(done: Published) -> str:
    """One line for people."""
    what = "registered" if done.new else "unchanged"
    line = f"{done.subject}: arbooth-{done.subject} version {done.version} {what}, candidate"
    if done.champion:
        return f"{line} and champion"
    return f"{line}; not champion: {'; '.join(done.gate)}"


def _with_overrides(params, subject: str):
    """The parameters as this subject's own stages saw them."""
    from arbooth.params import load_params

    if not params.subjects[subject].overrides:
        return params
    return load_params(settings().project / "params.yaml", subject)
