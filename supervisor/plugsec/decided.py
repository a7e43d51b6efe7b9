"""What has been decided about a run before anything of it is started: step 2 of the pipeline hands it on."""

from plugsec_plugins.manifest import Manifest
from plugsec_policies.decision import Grant
from plugsec_signing.typed import Any, NamedTuple
from plugsec_signing.verify import UnsafeUnsignedBundle, VerifiedBundle


class Decided(NamedTuple):
    """Which method of which bundle is called with which value, under which grant."""

    bundle: VerifiedBundle | UnsafeUnsignedBundle
    manifest: Manifest
    method: str
    value: Any
    grant: Grant
