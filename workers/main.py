"""What `dramatiq workers.main` imports: a worker process of its own, beside API processes that serve only."""

from __future__ import annotations

from rag_service.runtime import build
from rag_service.settings import Settings
from workers.actors import declare_actors

runtime = build(Settings())
runtime.open()
broker = runtime.broker
declare_actors(broker, runtime.runner.run)
