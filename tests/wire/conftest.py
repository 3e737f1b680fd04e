import uvloop


def pytest_asyncio_loop_factories(config, item):
    """The rim is made for uvloop, whose transports differ from asyncio's in what matters here."""
    return {"uvloop": uvloop.new_event_loop}
