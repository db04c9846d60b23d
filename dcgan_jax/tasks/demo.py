"""`--mode=demo`: interactive demo of a run in the browser."""

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator

from dcgan_jax.data import degradations
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import demo_functions
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.trained_run import merge_config, restore

_MAX_UPLOAD = '16mb'


def run(options: TaskOptions) -> TaskResult:
    """Serve a page with one tab per task until the process is interrupted.

    For a latent generator there are tabs for samples, latent interpolation, SeFa directions,
    restoration by latent optimization, and anomaly scores; for a generator that takes images there
    is the tab of its task.

    Args:
        options: Uses `workdir`, `config`, `checkpoint`, `seed` (of latent optimization), `host` and
            `port`.

    Returns:
        A result without a path.

    Raises:
        UserError: If `workdir` contains no run, Gradio is not installed, or the port is in use.
    """
    _check_port(options.host, options.port)
    with _temporary_uploads(), _stopped_by_signals():
        _serve(options)
    return TaskResult(None)


@contextlib.contextmanager
def _temporary_uploads() -> Iterator[None]:
    """Return a context in which Gradio keeps uploads and results in a folder that is deleted."""
    before = os.environ.get('GRADIO_TEMP_DIR')
    with tempfile.TemporaryDirectory() as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        try:
            yield
        finally:
            del os.environ['GRADIO_TEMP_DIR']
            if before is not None:
                os.environ['GRADIO_TEMP_DIR'] = before


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Return a context that Ctrl-C, SIGTERM and a closed terminal end without an error."""
    numbers = [signal.SIGINT, signal.SIGTERM]  # SIGINT is ignored in background jobs.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Ignored by `nohup`.
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(options: TaskOptions) -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'--mode=demo needs Gradio ({error}): pip install -r requirements-demo.txt'
        ) from error
    from dcgan_jax.tasks import demo_page

    trained = restore(options.workdir, options.checkpoint)
    config = merge_config(trained.run.config, options.config)
    generation = anomalies = None
    kinds = (config.input.kind,)
    if not degradations.takes_images(config):
        generation = demo_functions.Generation(trained)
        anomalies = demo_functions.AnomalyDetection(trained, config, options.seed)
        kinds = degradations.KINDS[1:]
    restorations = [demo_functions.Restoration(options, kind) for kind in kinds]
    page = demo_page.build(str(options.workdir), generation, restorations, anomalies)
    try:
        page.launch(
            server_name=options.host, server_port=options.port, share=False, quiet=True,
            max_file_size=_MAX_UPLOAD, show_error=True, footer_links=[], ssr_mode=False,
            theme=demo_page.theme(), prevent_thread_lock=True,
        )  # fmt: skip
    except OSError:
        _check_port(options.host, options.port)  # Another process may have bound the port.
        raise
    print(f'demo: http://{options.host}:{options.port} (Ctrl-C to stop)', flush=True)
    page.block_thread()


def _check_port(host: str, port: int) -> None:
    """Raise `UserError` if no socket can be bound to the address."""
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
        except OSError as error:
            raise UserError(
                f'--host={host} --port={port} cannot be used ({error.strerror}): use another port'
            ) from error
