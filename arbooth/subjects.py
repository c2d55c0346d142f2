"""Subjects in params.yaml: added with their photos checked, comments and order kept."""

from __future__ import annotations

import io
import re
from pathlib import Path

from arbooth.data.bases import load_base
from arbooth.data.files import whole_file, whole_folder
from arbooth.data.photos import read_photos
from arbooth.errors import NAME, InputError
from arbooth.params import load_params
from arbooth.settings import settings


def add_subject(name: str, noun: str, photos: Path, prompts: str | None = None) -> list[str]:
    """Check everything, copy the photos to photos/NAME, then declare the subject.

    Returns:
        Lines that say what was done and what comes next.

    Raises:
        InputError: a bad or taken name, unusable photos, an unknown prompt list; nothing is written then.
    """
    here = settings()
    params = load_params(here.project / "params.yaml")
    noun = " ".join(noun.split())
    class_name = re.sub(r"[^a-z0-9]+", "_", noun.lower()).strip("_")
    if not NAME.fullmatch(name):
        raise InputError(f"a subject can't be named {name!r}: use 1 to 64 of a-z, 0-9, _ and -")
    if name in params.subjects:
        raise InputError(f"there is a subject {name!r} already: choose another name, or remove it first")
    if not NAME.fullmatch(class_name):
        raise InputError(f"{noun!r} is no class noun: write one or two English words, say 'teddy bear'")
    if class_name in params.classes and params.classes[class_name].noun != noun:
        raise InputError(f"class {class_name!r} is there with the noun {params.classes[class_name].noun!r}: write that")
    chosen = prompts or next(iter(params.prompt_sets))
    if chosen not in params.prompt_sets:
        raise InputError(f"no prompt list {chosen!r} (known: {', '.join(params.prompt_sets)})")
    target = here.project / "photos" / name
    photos = photos.expanduser()
    if target.exists() and target.resolve() != photos.resolve():
        raise InputError(f"{target} is in the way: move it, or choose another name")
    base = load_base(params.base, here.project, here.path("weights"))
    size = base.picture_size(base.quantizer(params.picture.ratio, params.picture.pixels))
    checked = read_photos(photos, min(size) // 2, here.max_pixels)
    if not target.exists():
        with whole_folder(target) as folder:
            for photo in checked.photos:
                (folder / photo.path.name).write_bytes(photo.path.read_bytes())
    entry = {"class": class_name, "prompts": chosen, "crops": {}, "overrides": {}}
    _edit(here.project / "params.yaml", lambda tree: _insert(tree, name, entry, class_name, noun))
    lines = [f"warning: {note}" for note in checked.warnings]
    lines.append(f"added {name} ({noun}) with {len(checked.photos)} photos in photos/{name}")
    lines.append("next: dvc repro")
    lines.append(f"to version the photos: dvc add photos/{name}")
    return lines


def remove_subject(name: str) -> str:
    """Take a subject out of params.yaml.

    Raises:
        InputError: there is none of that name.
    """
    here = settings()
    params = load_params(here.project / "params.yaml")
    if name not in params.subjects:
        raise InputError(f"no subject {name!r} (known: {', '.join(params.subjects) or 'none'})")
    _edit(here.project / "params.yaml", lambda tree: tree["subjects"].pop(name))
    return f"removed {name} from params.yaml; photos/{name} and its results are still there"


def _insert(tree, name: str, entry: dict, class_name: str, noun: str) -> None:
    tree["subjects"][name] = entry
    tree["classes"].setdefault(class_name, {"noun": noun})


def _edit(path: Path, change) -> None:
    """Change a YAML file in place, keeping its comments and layout; the result must still hold."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(path.read_text(encoding="utf-8"))
    change(tree)
    text = io.StringIO()
    yaml.dump(tree, text)
    with whole_file(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
        load_params(part)
