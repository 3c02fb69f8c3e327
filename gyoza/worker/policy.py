"""What this worker lets the containers of ops be and have, whatever a server asks for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gyoza.models import InvalidImageError, check_image
from gyoza.models.limits import LEAST_RAM_MB
from gyoza.worker.containers.engine import OWN_NETWORK
from gyoza.worker.containers.image_names import check_pattern, is_allowed
from gyoza.worker.errors import PolicyRefused, SettingsError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")

MAX_ID = 2**31 - 1
"""The highest id of a user or group that engines take."""

_LEAST: dict[str, float] = {
    "pids_limit": 1,
    "shm_mb": 1,
    "max_cpu": 0.01,
    "max_ram_mb": LEAST_RAM_MB,
}


@dataclass(frozen=True, kw_only=True)
class ContainerPolicy:
    """The worker's policy for containers; part of its settings.

    Attributes:
        allow_images: Patterns of the images that may run, as `is_allowed` reads them; none for any.
        network: The engine's network that containers are in; `gyoza` is made for them, `none` is no
            network.
        user: `UID` or `UID:GID`, names too, in place of the image's own; None for that.
        runtime: The engine's runtime, such as gVisor's `runsc`; None for its default.
        read_only: The root file system is read-only, with a small `/tmp` in memory.
        pids_limit: Processes and threads that one container may have.
        shm_mb: Size of its `/dev/shm` in MB.
        max_cpu: Most CPU cores one run gets, and what one gets that asks for none; None for all.
        max_ram_mb: The same for its memory in MB.
    """

    allow_images: list[str] = field(default_factory=list[str])
    network: str = OWN_NETWORK
    user: str | None = None
    runtime: str | None = None
    read_only: bool = False
    pids_limit: int = 4096
    shm_mb: int = 64
    max_cpu: float | None = None
    max_ram_mb: int | None = None

    def __post_init__(self) -> None:
        for what, value, pattern in (
            ("network", self.network, _NAME),
            ("user", self.user, _USER),
            ("runtime", self.runtime, _NAME),
        ):
            if value is not None and not pattern.fullmatch(value):
                raise SettingsError(f"The setting {what} cannot be {value!r}.")
        ids = [int(part) for part in (self.user or "").split(":") if part.isdecimal()]
        if any(number > MAX_ID for number in ids):
            raise SettingsError(f"The setting user cannot be {self.user}: ids end at {MAX_ID}.")
        for pattern in self.allow_images:
            check_pattern(pattern)
        require_least(self, _LEAST)

    def require_allowed(self, image: str, cpu: float | None, ram_mb: float | None) -> None:
        """Do nothing if such a run may be executed here.

        Raises:
            PolicyRefused: If not; says which setting would allow it.
        """
        try:
            check_image(image)
        except InvalidImageError as error:
            raise PolicyRefused(str(error)) from error
        if not is_allowed(image, self.allow_images):
            raise PolicyRefused(
                f"This worker does not run the image {image}: its setting allow_images has no "
                "pattern for it."
            )
        if ram_mb is not None and ram_mb < LEAST_RAM_MB:
            raise PolicyRefused(
                f"The run asks for ram_mb {ram_mb:g}, and no engine gives less than {LEAST_RAM_MB}."
            )
        for what, asked, most in (("cpu", cpu, self.max_cpu), ("ram_mb", ram_mb, self.max_ram_mb)):
            if asked is not None and most is not None and asked > most:
                raise PolicyRefused(
                    f"The run asks for {what} {asked:g} and this worker gives {most:g} at most: "
                    f"its setting max_{what}."
                )


def require_least(settings: object, least: Mapping[str, float]) -> None:
    """Do nothing unless a setting is less than it may be; None is no number and fine.

    Raises:
        SettingsError: If one is.
    """
    for name, bound in least.items():
        value: float | None = getattr(settings, name)
        if value is not None and not value >= bound:  # nor NaN
            raise SettingsError(
                f"The setting {name.removesuffix('_s')} must be at least {bound:g}, not {value:g}."
            )
