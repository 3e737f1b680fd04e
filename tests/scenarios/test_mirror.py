"""A real origin and a real client: wget mirrors nginx's files through edge and shields, twice."""

import shutil

import pytest

from tests.kit import need
from tests.scenarios.mirroring import (
    DOCUMENTS,
    copy_documents,
    differing,
    mirror,
    nginx,
    requests_logged,
)
from tests.scenarios.running import small_cdn


@pytest.mark.debian
@pytest.mark.usefixtures("unmeasured")
async def test_wget_mirrors_a_real_site_twice_and_the_origin_serves_it_once(tmp_path):
    need("wget")
    site = tmp_path / "site"
    site.mkdir()
    copied = copy_documents(site)
    assert copied, f"nothing in {DOCUMENTS}"
    (tmp_path / "cdn").mkdir()
    async with nginx(tmp_path) as origin, small_cdn(tmp_path / "cdn", origin) as cdn:
        await mirror(cdn.edge.url, tmp_path / "first")
        asked = await requests_logged(origin, tmp_path)
        assert asked >= len(copied)
        await mirror(cdn.edge.url, tmp_path / "second")
        assert await requests_logged(origin, tmp_path) == asked
    assert differing(copied, site, tmp_path / "first") == []
    assert differing(copied, site, tmp_path / "second") == []
    shutil.rmtree(tmp_path)  # 350 MB that only a failure has a use for
