"""What the programs of several tests begin with: a run that is stopped between a choice and an effect."""

BEGINNING = """
import asyncio, os, sys, threading, time
import exoflow
from exoflow import flow, task
from exoflow.journal import journal, takeover

journal.BEAT_S = takeover.BEAT_S = 1.0

def enter(name):
    with open("seen", "a") as file:
        file.write(f"{name}\\n")

@task
def choose(name):
    enter(f"choose-{name}")
    return os.urandom(8).hex()

@task(effect="idempotent")
def wait(name, choice):
    enter(f"wait-{name}")
    while not os.path.exists(f"gate-{name}"):
        time.sleep(0.01)
    return choice

@task(effect="irrevocable")
def act(name, choice):
    enter(f"act-{name}")
    return choice

@flow
def work(name: str) -> str:
    return act(name, wait(name, choose(name)))
"""
