"""oci export, oci import: a bundle in an OCI image layout, for registries and their tools."""

from typing import Annotated

import typer

from plugsec.cli.common import emit_json, refuse
from plugsec.cli.edge import show
from plugsec.cli.options import Bundle, Json, examples
from plugsec.errors import REFUSALS

_EXPORT = examples(
    "plugsec oci export wordfreq-1.2.3.plug ./layout",
    "oras cp --from-oci-layout ./layout:1.2.3 registry.example/acme/wordfreq:1.2.3",
)
_IMPORT = examples(
    "oras cp registry.example/acme/wordfreq:1.2.3 --to-oci-layout ./layout:1.2.3",
    "plugsec oci import ./layout",
    "plugsec oci import ./layout --ref 1.2.3 -o wordfreq.plug",
)


def register(app: typer.Typer) -> None:
    """Add the `oci` group."""
    group = typer.Typer(
        help="A bundle in an OCI image layout, for registries and their tools.", no_args_is_help=True
    )
    group.command("export", epilog=_EXPORT)(export)
    group.command("import", epilog=_IMPORT)(import_layout)
    app.add_typer(group, name="oci")


def export(
    bundle: Bundle,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A new or an empty directory.")],
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="NAME", help="The reference name. Default: the version.")
    ] = None,
    json: Json = False,
) -> None:
    """Write an OCI image layout that carries the bundle as its one blob, byte for byte.

    Structure, hashes and signatures must hold (exit 3, 4); whose signatures they are is not asked.
    """
    from plugsec_signing import oci  # noqa: PLC0415 - each command loads only what it needs

    try:
        exported = oci.export(bundle, directory, ref=ref)
    except REFUSALS as err:
        refuse(err, as_json=json)
    envelope = exported.envelope
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": envelope.bundle_id, "plugin": envelope.name,
            "version": envelope.version, "directory": directory,
            "manifest_digest": exported.manifest_digest, "layer_digest": exported.layer_digest,
        })  # fmt: skip
        return
    show(f"{envelope.name} {envelope.version} in {directory}")
    show(f"  bundle id   {envelope.bundle_id}")
    show(f"  manifest    {exported.manifest_digest}")


def import_layout(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="An OCI image layout directory.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to. Default: PLUGIN-VERSION.plug here."),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option("--ref", metavar="NAME", help="Which bundle, where there are several: name or digest."),
    ] = None,
    json: Json = False,
) -> None:
    """Take the bundle out of an OCI image layout: the very file that was put in.

    Digests, structure and signatures must hold (exit 3, 4). Nobody is trusted for it: verify, install and
    run ask the trust store.
    """
    from plugsec_signing import oci  # noqa: PLC0415 - each command loads only what it needs

    try:
        imported = oci.import_layout(directory, output, ref=ref)
    except REFUSALS as err:
        refuse(err, as_json=json)
    envelope = imported.envelope
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": envelope.bundle_id, "plugin": envelope.name,
            "version": envelope.version, "path": imported.path, "layer_digest": imported.layer_digest,
        })  # fmt: skip
        return
    show(f"{envelope.name} {envelope.version}  {imported.path}")
    show(f"  bundle id   {envelope.bundle_id}")
    show("  next        plugsec verify, or plugsec install")
