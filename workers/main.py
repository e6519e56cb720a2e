"""What `dramatiq workers.main` imports: a worker process of its own, beside API processes that serve only."""

from __future__ import annotations

import atexit
from contextlib import ExitStack

from rag_service.runtime import build
from rag_service.runtime.observing import metrics_port, start_log, tracing
from rag_service.settings import Settings
from workers.actors import declare_actors

settings = Settings()
observed = ExitStack()  # until the process ends
start_log(settings)
observed.enter_context(tracing(settings))
runtime = build(settings)
runtime.open()
observed.enter_context(metrics_port(settings))
atexit.register(observed.close)
broker = runtime.broker
declare_actors(broker, runtime.runner.run)
