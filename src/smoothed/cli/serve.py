"""`smoothed serve`: a smoothed classifier as an HTTP service, with a page to explore it."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from smoothed.cli.console import note
from smoothed.cli.options import (
    DataOptions,
    ModelOptions,
    SmoothingOptions,
    VotePrecision,
    option,
    run_option,
)

if TYPE_CHECKING:
    from smoothed.serve.settings import ServeSettings

SERVICE_PANEL = "Service"
LIMITS_PANEL = "Limits"
NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
"""Packages of the extra `serve` by the names of their modules."""


@dataclass(frozen=True)
class AddressOptions:
    """Where the service listens, and to whom."""

    host: Annotated[str, option(SERVICE_PANEL, "Name or address to listen at.")] = "127.0.0.1"
    port: Annotated[int, option(SERVICE_PANEL, "Port to listen at; 0 for any free one.")] = 8000
    token: Annotated[
        str | None,
        option(
            SERVICE_PANEL,
            "Secret of at least 16 characters that clients must present; needed for a host that others can reach.",
            envvar="SMOOTHED_TOKEN",
            show_envvar=True,
        ),
    ] = None


@dataclass(frozen=True)
class LimitOptions:
    """What a request may ask for, and how much the service takes at once."""

    max_samples: Annotated[int, option(LIMITS_PANEL, "Largest number of draws of a vote.")] = 512
    max_steps: Annotated[int, option(LIMITS_PANEL, "Largest number of steps of an attack.")] = 100
    max_eot_samples: Annotated[int, option(LIMITS_PANEL, "Largest number of draws for one gradient.")] = 32
    max_body: Annotated[int, option(LIMITS_PANEL, "Largest body of a request, in bytes.")] = 8 * 2**20
    max_pixels: Annotated[int, option(LIMITS_PANEL, "Largest width times height of an image file.")] = 2**24
    queue: Annotated[int, option(LIMITS_PANEL, "Largest number of votes that are waiting or running.")] = 64
    streams: Annotated[int, option(LIMITS_PANEL, "Largest number of explorers that watch a vote or an attack.")] = 4
    body_timeout: Annotated[float, option(LIMITS_PANEL, "Seconds in which a client must have sent its request.")] = 10.0
    grace: Annotated[float, option(LIMITS_PANEL, "Seconds after SIGTERM in which requests may end.")] = 10.0
    predict_only: Annotated[
        bool,
        option(
            LIMITS_PANEL,
            "Take images alone and answer with the model's own vote, without the explorer; for clients who may be "
            "attackers.",
            "--predict-only",
        ),
    ] = False

    def settings(self) -> "ServeSettings":
        """The limits as the service takes them.

        Raises:
            ArgumentError: a limit is not positive; the error has the name of the option.
        """
        from smoothed.errors import ArgumentError
        from smoothed.serve.settings import ServeSettings

        try:
            return ServeSettings(**{field: getattr(self, name) for name, field in FIELDS.items()})
        except ArgumentError as error:
            names = {field: name for name, field in FIELDS.items()}
            raise error.named(names[error.argument]) from None


FIELDS = {
    "max_samples": "num_samples",
    "max_steps": "steps",
    "max_eot_samples": "eot_samples",
    "max_body": "body_bytes",
    "max_pixels": "pixels",
    "queue": "queue",
    "streams": "streams",
    "body_timeout": "body_seconds",
    "grace": "grace_seconds",
    "predict_only": "predict_only",
}
"""Fields of `ServeSettings` by the names of their options."""


@dataclass(frozen=True)
class ServiceRunOptions:
    """How votes are computed."""

    precision: VotePrecision = "float32"
    chunk_size: Annotated[
        int | None, run_option("Largest number of rows in one forward pass.", show_default="128, 256 on a GPU")
    ] = None


def serve(
    model: ModelOptions,
    data: DataOptions,
    smoothing: SmoothingOptions,
    address: AddressOptions,
    limits: LimitOptions,
    run: ServiceRunOptions,
) -> None:
    """Serve a smoothed classifier over HTTP, with a page in the browser that shows how it votes.

    Requests that wait together share passes of the network. The page / is the explorer, /docs describes the interface,
    /metrics has numbers for Prometheus. SIGTERM or Ctrl-C ends the service once the requests that it took are answered.
    The images of --data give the size that the network takes; the explorer shows the first 60.

    Examples:
        smoothed serve
        smoothed serve --model runs/mine/best.safetensors --port 8080 --precision auto
        SMOOTHED_TOKEN=$(openssl rand -hex 16) smoothed serve --host 0.0.0.0
    """
    require_extra()
    from smoothed.cli.inputs import CommandInputs, no_sigma
    from smoothed.serve import run as service
    from smoothed.serve.served import BUNDLED
    from smoothed.utils.checks import check_choice, check_positive
    from smoothed.utils.devices import PRECISIONS

    service.check_address(address.host, address.port, address.token)
    settings = limits.settings()
    check_choice(run.precision, PRECISIONS, "precision")
    if run.chunk_size is not None:
        check_positive(run.chunk_size, "chunk_size")
    inputs = CommandInputs.load(model, data, at_most=BUNDLED)
    chosen = inputs.smoothing(smoothing)
    if chosen is None:
        raise no_sigma(inputs.name)
    service.serve(
        chosen.smooth(inputs.network),
        inputs.images,
        name=inputs.name,
        host=address.host,
        port=address.port,
        token=address.token,
        settings=settings,
        precision=run.precision,
        chunk_size=run.chunk_size,
        on_start=lambda url: note(
            f"{'' if limits.predict_only else f'explorer at {url}, '}interface at {url}docs; Ctrl-C ends the service"
        ),
    )


def require_extra() -> None:
    """Raise `ArgumentError` unless the packages of the extra `serve` are installed."""
    from smoothed.errors import ArgumentError

    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        got = f"an environment without {', '.join(missing)}"
        raise ArgumentError("serve", "the packages of its extra", got, 'pip install "smoothed[serve]"')
