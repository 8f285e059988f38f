"""Parts for the command ``benchmarks gpu`` that pass, raise, end their process, or never end."""

import os
import signal
import time


def passing(device, size):
    yield {"case": f"{device} {size}", "is_ok": True}


def raising(device, size):
    yield from passing(device, size)
    yield {"case": "no number", "is_ok": False, "value": float("nan")}
    message = "no kernel"
    raise RuntimeError(message)


def dying(device, size):
    os.kill(os.getpid(), signal.SIGKILL)
    yield from passing(device, size)


def hanging(device, size):
    yield from passing(device, size)
    time.sleep(3600)
