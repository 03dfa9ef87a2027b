"""The official LRA archive: its origin, and the search for a part of it in the layouts that are known to exist.

The archive has two levels: `lra_release/lra_release/` holds the data of every published number (tsv_data, pathfinder32
… 256). Beside it is a second and different `lra_release/pathfinder128` (google-research/long-range-arena issue 38).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from lra_bench.datasource import Origin, RemoteFile
from lra_bench.errors import UserError

ARCHIVE = "lra_release.gz"
ORIGIN = Origin(
    kind="official",
    name=ARCHIVE,
    files=(RemoteFile(f"https://storage.googleapis.com/long-range-arena/{ARCHIVE}", ARCHIVE),),
    note="8.2 GB for all of LRA; reported to answer 403 since 2026; license Apache-2.0",
)

INNER = "lra_release"
"""The name of both levels of the archive's folders."""


def locate_part(path: Path, parts: Sequence[str], holds: str) -> Path:
    """Return the archive, or the folder in or above the extracted `path` that is one of `parts` and contains `holds`.

    `parts` are paths relative to the innermost folder of the release, such as `tsv_data`. Of two copies at different
    depths the inner one is returned. Raises UserError naming what was looked for.
    """
    if path.is_file():
        return path
    for part in parts:
        for root in (path / INNER / INNER, path / INNER, path):
            if not (root / part / holds).exists():
                continue
            if (root / INNER).is_dir():
                raise UserError(
                    f"{root / part} is the outer copy, which is another data set; the one that published results used "
                    f"should be in {root / INNER}, and is not. Extract the archive again."
                )
            return root / part
    for part in parts:  # `path` may be the part itself or a folder between the release and the part
        names = Path(part).parts
        for cut in range(1, len(names) + 1):
            folder, release = path.joinpath(*names[cut:]), path.joinpath(*[".."] * cut).resolve()
            if path.resolve().parts[-cut:] != names[:cut] or not (folder / holds).exists():
                continue
            if release.name == INNER and (release / INNER).is_dir():
                raise UserError(f"{path} is the outer copy, which is another data set. Give {release / INNER} instead.")
            return folder
    if (path / holds).exists():
        return path
    if (path / ARCHIVE).is_file():
        return path / ARCHIVE
    if not path.exists():
        raise UserError(f"{path} does not exist. Give {ARCHIVE} or the folder it was extracted to.")
    looked = " or ".join(f"{part}/{holds}" for part in parts)
    raise UserError(f"{path} holds no {looked}, neither itself nor in {INNER}/{INNER}, and no {ARCHIVE}.")


def innermost(roots: Collection[str], path: Path, what: str) -> str:
    """Return which of several folders of an archive is meant: the one below the most folders `lra_release`.

    Raises UserError if there is no folder, or if two are equally deep. `what` names the content for the message.
    """
    if not roots:
        raise UserError(f"{path} holds no {what}: it is another archive, or cut short.")
    depth = {root: root.split("/").count(INNER) for root in roots}
    deepest = [root for root in sorted(roots) if depth[root] == max(depth.values())]
    if len(deepest) > 1:
        raise UserError(f"{path} holds {what} more than once ({', '.join(deepest)}). Extract it and give one folder.")
    return deepest[0]
