from __future__ import annotations

import threading

import pytest

from rag_service.db import Database, jobs, ringing
from rag_service.db.jobs import Job
from rag_service.db.ringing import Bell, Limits
from rag_service.errors import NotFound
from rag_service.types import JobKind, JobState, Queue

TEAM = "red"
ANY = Limits(jobs=100, syncs=100)


def add(database: Database, kind: JobKind = JobKind.INDEX, parent_id: str | None = None) -> str:
    with database.transaction() as transaction:
        return jobs.add(transaction.connection, kind, TEAM, parent_id=parent_id)


def bell(job_id: str) -> Bell:
    return Bell(Queue.UPLOADS, JobKind.INDEX, job_id)


def claim(database: Database, job_id: str, lease_s: float = 60) -> Job | None:
    with database.transaction() as transaction:
        return jobs.claim(transaction.connection, job_id, lease_s)


def held(database: Database, job_id: str, lease_s: float = 60) -> Job:
    job = claim(database, job_id, lease_s)
    assert job is not None
    return job


def state(database: Database, job_id: str) -> JobState:
    with database.read() as connection:
        return jobs.get(connection, TEAM, job_id).state


def test_of_many_claimants_exactly_one_gets_the_job(database: Database) -> None:
    job_id = add(database)
    got: list[Job | None] = []
    threads = [threading.Thread(target=lambda: got.append(claim(database, job_id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([job for job in got if job is not None]) == 1


def test_an_expired_lease_passes_the_job_on_and_counts_a_worker_death(database: Database) -> None:
    job_id = add(database)
    first = held(database, job_id, lease_s=-1)
    second = held(database, job_id)
    assert (second.fence, second.worker_deaths, second.attempts) == (first.fence + 1, 1, 0)


def test_a_sync_that_waits_for_its_documents_gets_no_lease_from_who_listed_it(database: Database) -> None:
    sync = held(database, add(database, JobKind.SYNC))
    with database.transaction() as transaction:
        jobs.proceed(transaction.connection, sync, listed=True, lease_until=None)
        jobs.renew(transaction.connection, {sync.id: sync.fence}, 60)
        jobs.hand_back_all(transaction.connection, {sync.id: sync.fence})
        waits = jobs.get(transaction.connection, TEAM, sync.id)
    assert (waits.state, waits.lease_until) == (JobState.RUNNING, None)


def test_a_holder_that_lost_its_lease_can_write_nothing_more(database: Database) -> None:
    job_id = add(database)
    zombie = held(database, job_id, lease_s=-1)
    held(database, job_id)
    with database.transaction() as transaction:
        assert not jobs.is_held(transaction.connection, zombie)
        assert not jobs.finish(transaction.connection, zombie, JobState.SUCCEEDED)
        assert not jobs.retry(transaction.connection, zombie, {}, 0)
        assert not jobs.proceed(transaction.connection, zombie, total=3)
    assert state(database, job_id) == JobState.RUNNING


def test_progress_forgives_the_deaths_before_it(database: Database) -> None:
    job_id = add(database)
    held(database, job_id, lease_s=-1)
    again = held(database, job_id, lease_s=-1)
    with database.transaction() as transaction:
        jobs.proceed(transaction.connection, again, counters={"scanned": 50})
    assert (again.worker_deaths, held(database, job_id).worker_deaths) == (1, 1)


def test_a_renewed_lease_holds(database: Database) -> None:
    job = held(database, add(database), lease_s=-1)
    with database.transaction() as transaction:
        jobs.renew(transaction.connection, {job.id: job.fence}, 60)
    assert claim(database, job.id) is None


def test_a_job_put_back_waits_for_its_time(database: Database) -> None:
    job = held(database, add(database))
    with database.transaction() as transaction:
        jobs.retry(transaction.connection, job, {"code": "unavailable"}, 3600)
    assert claim(database, job.id) is None
    with database.transaction() as transaction:
        assert ringing.fill(transaction.connection, ANY) == []


def test_a_job_put_back_is_rung_again_when_its_time_has_come(database: Database) -> None:
    job = held(database, add(database))
    with database.transaction() as transaction:
        jobs.retry(transaction.connection, job, {"code": "unavailable"}, 0)
        assert ringing.fill(transaction.connection, ANY) == [bell(job.id)]
        assert ringing.fill(transaction.connection, ANY) == []
    again = held(database, job.id)
    assert again.attempts == 1


def test_a_job_whose_message_was_lost_is_rung_again_once_per_period(database: Database) -> None:
    job_id = add(database)
    with database.transaction() as transaction:
        assert ringing.lost(transaction.connection, silent_for_s=60, limit=10) == []
        assert ringing.lost(transaction.connection, silent_for_s=0, limit=10) == [bell(job_id)]


def test_a_sync_ends_with_its_last_document(database: Database) -> None:
    sync = held(database, add(database, JobKind.SYNC))
    children = [held(database, add(database, parent_id=sync.id)) for _ in range(2)]
    with database.transaction() as transaction:
        jobs.proceed(transaction.connection, sync, listed=True, lease_until=None)
        jobs.settle_parent(transaction.connection, sync.id)
        jobs.finish(transaction.connection, children[0], JobState.SUCCEEDED)
        jobs.settle_parent(transaction.connection, sync.id)
    assert state(database, sync.id) == JobState.RUNNING
    with database.transaction() as transaction:
        jobs.finish(transaction.connection, children[1], JobState.FAILED)
        jobs.settle_parent(transaction.connection)
    assert state(database, sync.id) == JobState.COMPLETED_WITH_ERRORS
    with database.read() as connection:
        assert jobs.get(connection, TEAM, sync.id).counters["failed"] == 1


def test_a_sync_waiting_for_its_documents_is_nobodys_to_claim(database: Database) -> None:
    sync = held(database, add(database, JobKind.SYNC))
    add(database, parent_id=sync.id)
    with database.transaction() as transaction:
        jobs.proceed(transaction.connection, sync, listed=True, lease_until=None)
        jobs.release_all(transaction.connection)
    assert claim(database, sync.id) is None


def test_what_a_dead_process_held_is_queued_again(database: Database) -> None:
    job = held(database, add(database))
    with database.transaction() as transaction:
        jobs.release_all(transaction.connection)
        assert ringing.lost(transaction.connection, silent_for_s=0, limit=10) == [bell(job.id)]
    assert held(database, job.id).worker_deaths == 1


def test_jobs_that_workers_died_with_are_rung_last(database: Database) -> None:
    suspects = [held(database, add(database)) for _ in range(2)]
    innocent = add(database)
    with database.transaction() as transaction:
        jobs.release_all(transaction.connection)
        rung = [bell.job_id for bell in ringing.lost(transaction.connection, silent_for_s=0, limit=10)]
    assert rung == [innocent, *(job.id for job in suspects)]


def test_canceling_ends_what_waits_and_asks_what_runs(database: Database) -> None:
    sync = held(database, add(database, JobKind.SYNC))
    waiting, running = add(database, parent_id=sync.id), held(database, add(database, parent_id=sync.id))
    with database.transaction() as transaction:
        jobs.cancel(transaction.connection, TEAM, sync.id)
    assert state(database, waiting) == JobState.CANCELED
    with database.read() as connection:
        assert jobs.get(connection, TEAM, running.id).cancel_requested
        assert jobs.get(connection, TEAM, sync.id).cancel_requested


def test_another_teams_job_is_not_there(database: Database) -> None:
    job_id = add(database)
    with database.read() as connection, pytest.raises(NotFound):
        jobs.get(connection, "blue", job_id)
