"""Locust's viewers for the scenarios: half of what they ask for nobody has asked for before.

Strategy: users who together send so many requests a second, evenly, and check every byte. `hot` is
a hundred objects, `cold` a new one each time.
"""

import random
from uuid import uuid4

from locust import FastHttpUser, constant_throughput, task
from locust.contrib.fasthttp import ResponseContextManager

from tests.scenarios.numbered import PER_SECOND, USERS, content_of


class Viewer(FastHttpUser):
    wait_time = constant_throughput(PER_SECOND / USERS)

    @task(1)
    def hot(self) -> None:
        self.ask("hot", f"/hot?n={random.randrange(100)}")

    @task(1)
    def cold(self) -> None:
        self.ask("cold", f"/cold?n={uuid4().hex}")

    def ask(self, name: str, target: str) -> None:
        with self.client.get(target, name=name, catch_response=True) as answer:
            self.check(target, answer)

    def check(self, target: str, answer: ResponseContextManager) -> None:
        if answer.status_code != 200:
            answer.failure(f"status {answer.status_code}: {answer.error or answer.text}")
        elif answer.content != content_of(target):
            answer.failure("wrong bytes")
        else:
            answer.success()
