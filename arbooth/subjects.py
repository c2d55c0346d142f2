"""Subjects of a project: added with their photos checked, taken out, and what they came to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

from arbooth.data.bases import GROUND_PART, Base
from arbooth.data.files import read_numbers, whole_folder
from arbooth.data.manifest import mask_file, photo_files, photos_digest
from arbooth.data.photos import Photo, fit_to, look_like_photographs, picture_of, read_photos
from arbooth.data.views import views_of
from arbooth.edits import add_entry, edit_params, remove_entry
from arbooth.errors import NAME, DvcFailed, InputError, checked_name
from arbooth.painting.sheet import contact_sheet
from arbooth.params import Params
from arbooth.project import Project
from arbooth.settings import without_secrets

PHOTOGRAPH_STEPS = 1.5  # times those of drawings


def add_subject(
    project: Project, name: str, noun: str, photos: Path, prompts: str | None = None, background: str | None = None
) -> list[str]:
    """Check everything, copy the photos to photos/NAME, declare the subject, write its dvc.yaml, version the photos.

    Args:
        background: "keep" or "remove"; else it goes where photographs meet a base of drawings and a subject stands out
            in each.

    Returns:
        Lines that say what was done and what comes next.

    Raises:
        InputError: a bad or taken name, unusable photos, an unknown prompt list; nothing is written then.
    """
    from arbooth.data.networks import unknown_words

    params = project.params()
    noun = " ".join(noun.split())
    class_name = re.sub(r"[^a-z0-9]+", "_", noun.lower()).strip("_")
    checked_name(name, "a subject")
    if name in params.subjects:
        raise InputError(f"there is a subject {name!r} already: choose another name, or remove it first")
    if not NAME.fullmatch(class_name):
        raise InputError(f"{noun!r} is no class noun: write one or two English words, say 'teddy bear'")
    if class_name in params.classes and params.classes[class_name].noun != noun:
        raise InputError(f"class {class_name!r} is there with the noun {params.classes[class_name].noun!r}: write that")
    chosen = prompts or next(iter(params.prompt_sets))
    if chosen not in params.prompt_sets:
        raise InputError(f"no prompt list {chosen!r} (known: {', '.join(params.prompt_sets)})")
    target = project.photos(name)
    photos = photos.expanduser()
    base = project.base(params)
    height, width = base.picture_size
    checked = read_photos(photos, min(height, width) // 2, project.settings.max_pixels)
    # The same photos there already: the user put them there, or an earlier try was killed after copying them.
    there = target.is_dir() and photos_digest(photo_files(target)) == photos_digest(photo_files(photos))
    if target.exists() and not there:
        raise InputError(f"{target} is in the way: move it, or choose another name")
    foreign = base.name == "embedded" and look_like_photographs(checked.photos)
    chosen_background, seen, said = _seen(checked.photos, base, background, foreign)
    overrides = _for_photographs(params) if foreign and chosen_background == "remove" else {}
    if overrides:
        said.append(f"photographs are harder to learn than drawings: subjects.{name}.overrides says {overrides}")
    entry = {"class": class_name, "prompts": chosen, "crops": {}, "background": chosen_background}
    entry |= {"captions": {}, "overrides": overrides}

    def declare(text: str) -> str:
        text = add_entry(text, "subjects", name, entry)
        return text if class_name in params.classes else add_entry(text, "classes", class_name, {"noun": noun})

    if not there:
        with whole_folder(target) as folder:
            for photo in checked.photos:
                for path in filter(None, (photo.path, mask_file(photo.path))):
                    (folder / path.name).write_bytes(path.read_bytes())
    try:
        edit_params(project.params_file, declare)
    except BaseException:
        if not there:
            shutil.rmtree(target, ignore_errors=True)
        raise
    project.write_graph()
    lines = [f"warning: {note}" for note in checked.warnings]
    unknown = unknown_words(base, noun)
    if unknown:
        lines.append(
            f"warning: base {base.name!r} does not know the word {', '.join(unknown)}: it learns the look alone"
        )
    lines += said
    if chosen_background == "keep":
        lines += [line for photo in checked.photos if (line := _cut_away(photo, height, width))]
    preview = project.outputs / f"{name}-preview.png"
    rows = [("the photos", [photo.image for photo in checked.photos])] if chosen_background == "remove" else []
    contact_sheet(preview, [*rows, ("what the model will see", seen)])
    lines.append(f"added {name} ({noun}) with {len(checked.photos)} photos in photos/{name}; look at {preview}")
    try:
        project.dvc("add", "-q", f"photos/{name}", say=lambda _: None)
        lines.append(f"DVC keeps the photos: commit photos/{name}.dvc, not the photos")
    except DvcFailed as error:
        lines.append(f"warning: DVC does not keep the photos ({error})")
    return [*lines, "next: dvc repro"]


def _seen(
    photos: list[Photo], base: Base, background: str | None, foreign: bool
) -> tuple[str, list[Image.Image], list[str]]:
    """What becomes of the background, the photos as the model will see them, and lines that say why.

    Args:
        foreign: photographs, where the base paints drawings.

    Raises:
        InputError: an unknown word, or no subject stands out where its background was to go.
    """
    if background not in (None, "keep", "remove"):
        raise InputError(f"--background is keep or remove, not {background!r}")
    lines = []
    if background == "remove" or (background is None and foreign):
        by_name = {photo.path.name: photo for photo in photos}
        views = views_of(list(by_name), "remove", base)
        for ground in base.grounds:  # a base that is damaged is no reason to keep a background
            base.verified(GROUND_PART + ground)
        try:
            seen = [picture_of(by_name[view.photo], view.ground, base, None, "remove") for view in views]
            why = ": the embedded base paints drawings" if background is None else ""
            return "remove", seen, [f"the background is taken out{why}; subjects.NAME.background says so"]
        except InputError as error:
            if background == "remove":
                raise
            lines = [f"warning: the background stays ({error})"]
    if foreign:
        lines.append("warning: these are photographs, and the embedded base paints drawings: a rough likeness at best")
    return "keep", [fit_to(photo.image, *base.picture_size) for photo in photos], lines


def _for_photographs(params: Params) -> dict:
    """What suits photographs on the embedded base, beside the defaults, which suit drawings.

    In a drawing's steps a photographed face is a smear. With more, drawings lose what they wear and their colours.
    """
    steps = params.finetune.steps
    return {} if steps == "auto" else {"finetune": {"steps": round(steps * PHOTOGRAPH_STEPS)}}


def _cut_away(photo: Photo, height: int, width: int) -> str | None:
    """What scaling to cover and cutting the centre loses of a photo, where it is a tenth or more."""
    wide, high = photo.image.size
    kept = min(wide / high, width / height) / max(wide / high, width / height)
    if kept > 0.9:
        return None
    side = "left and right" if wide / high > width / height else "top and bottom"
    return f"{photo.path.name}: {1 - kept:.0%} is cut off at {side}; set subjects.NAME.crops to choose what is kept"


def remove_subject(project: Project, name: str) -> str:
    """Take a subject out of params.yaml, with its dvc.yaml.

    Raises:
        InputError: there is none of that name.
    """
    params = project.params()
    if name not in params.subjects:
        raise InputError(f"no subject {name!r} (known: {', '.join(params.subjects) or 'none'})")
    edit_params(project.params_file, lambda text: remove_entry(text, "subjects", name))
    project.write_graph()
    return f"removed {name} from params.yaml; photos/{name} and its results are still there"


def summary_lines(project: Project) -> list[str]:
    """Where to look after `dvc repro`, and every subject's metrics.

    Raises:
        InputError: nothing has been evaluated yet.
    """
    params = project.params()
    lines = []
    for subject in params.subjects:
        path = project.paths("evaluate", subject, params)[1]["metrics"]
        if not path.is_file():
            raise InputError(f"{subject!r} is not evaluated yet: run `dvc repro`")
        lines.append(f"{subject} ({params.noun(subject)})")
        lines += [f"  {name:<24} {value:.3f}" for name, value in read_numbers(path).items()]
        lines.append(f"  contact sheet            {project.paths('generate', subject, params)[1]['sheet']}")
    uri = without_secrets(project.tracking_uri)
    lines.append(f"report   {project.paths('summarize', None, params)[1]['report'] / 'index.html'}")
    lines.append(f"MLflow   {uri}")
    lines.append(f"         look with: mlflow server --workers 1 --backend-store-uri {uri}")
    return lines


def shrink_adapter(project: Project, subject: str, rank: int, out: Path | None = None) -> list[str]:
    """Write a low-rank adapter of a subject that was fine-tuned whole; lines that say what it is and what it lost.

    Raises:
        InputError: it is not fine-tuned yet, or of low rank already, or has no such rank.
    """
    from arbooth.data.adapters import check_fits, read_adapter, shrink, write_adapter
    from arbooth.data.networks import load_transformer

    params = project.params(subject)
    base, full = project.base(params), project.adapter(subject, params)
    adapter, net = read_adapter(full, subject), load_transformer(base, project.device, params.compute)
    check_fits(adapter, net, base.hash)
    small, lost = shrink(adapter, net, rank)
    path = out or project.outputs / f"{subject}-rank{rank}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_adapter(path, small)
    worst, mean = max(lost, key=lambda name: lost[name]), sum(lost.values()) / len(lost)
    sizes = " of ".join(f"{file.stat().st_size / 1e6:.1f} MB" for file in (path, full))
    return [
        f"wrote {path}: {sizes}",
        f"lost of the change: {mean:.0%} on average, {lost[worst]:.0%} in {worst}",
        f"paint with it: arbooth generate {path} 'a photo of <S*> {adapter.noun}'",
    ]
