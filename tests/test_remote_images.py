"""Images behind URLs: the same pixels as from disk, and errors that name the URL."""

import functools
import http.server
import threading

import fsspec
import numpy as np
import pandas as pd
import pytest

from zoobot.data import remote_files
from zoobot.data.catalog import read_catalog
from zoobot.data.images import read_picture
from zoobot.errors import CatalogError, ImageError
from zoobot.predictions.predict_on_images import predict


@pytest.fixture
def bucket(catalog, tmp_path):
    """The folder of images as an object store has it."""
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(catalog.parent / "images"), "/bucket", recursive=True)
    yield "memory://bucket"
    filesystem.rm("/bucket", recursive=True)


@pytest.fixture
def server(catalog):
    """The same as a web server has it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=catalog.parent))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}/images"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize("kind", ["bucket", "server"])
def test_pixels_are_those_on_disk(kind, catalog, request):
    url = request.getfixturevalue(kind)
    for name in ("J0000.png", "J0039.png"):
        expected = read_picture(catalog.parent / "images" / name, size=32).pixels
        np.testing.assert_array_equal(read_picture(f"{url}/{name}", size=32).pixels, expected)


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_fits_too(suffix, bucket, tmp_path):
    from astropy.io import fits

    path = tmp_path / f"a{suffix}"
    fits.PrimaryHDU(np.random.default_rng(0).normal(1, 1, (3, 20, 20)).astype(np.float32)).writeto(path)
    fsspec.filesystem("memory").put(str(path), f"/bucket/{path.name}")
    np.testing.assert_array_equal(read_picture(f"{bucket}/{path.name}").pixels, read_picture(path).pixels)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", "cannot read image {url}: there is no {url}"),
        ("torn.png", "cannot read image {url}: "),
        ("text.png", "cannot read image {url}: it is neither PNG nor JPEG"),
        (
            "a.fits[1:9,1:9]",
            "cannot read image {url}: sections and several files",
        ),
        ("a-{{g,r}}.fits", "cannot read image {url}: sections and several files"),
    ],
)
def test_errors_name_the_url(name, message, bucket, catalog):
    url = f"{bucket}/{name.format()}"
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/torn.png", (catalog.parent / "images" / "J0000.png").read_bytes()[:300])
    filesystem.pipe("/bucket/text.png", b"a galaxy")
    with pytest.raises(ImageError) as raised:
        read_picture(url)
    assert str(raised.value).startswith(message.format(url=url))
    assert "/tmp" not in str(raised.value)


def test_devices_are_not_read_by_the_name_of_a_url():
    with pytest.raises(ImageError, match="no URL of another machine; give the path alone"):
        read_picture("file:///dev/zero")


@pytest.mark.parametrize(
    ("error", "failures", "calls"),
    [(TimeoutError("busy"), 2, 3), (TimeoutError("busy"), 9, 3), (FileNotFoundError(), 9, 1)],
)
def test_what_fails_for_a_moment_is_tried_again(error, failures, calls, bucket, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSES", (0.0, 0.0))
    kind, called = fsspec.get_filesystem_class("memory"), []
    read = kind.cat_file

    def fail(*args, **settings):
        called.append(args)
        if len(called) <= failures:
            raise error
        return read(*args, **settings)

    monkeypatch.setattr(kind, "cat_file", fail)
    if failures < calls:
        assert read_picture(f"{bucket}/J0000.png").pixels.shape == (48, 48, 3)
    else:
        with pytest.raises(ImageError, match=r"busy|there is no memory://"):
            read_picture(f"{bucket}/J0000.png")
    assert len(called) == calls


def test_catalogs_may_mix_urls_and_paths(bucket, catalog, tmp_path):
    table = pd.read_csv(catalog)[["id_str", "file_loc"]]
    table.loc[:19, "file_loc"] = [f"{bucket}/{name}.png" for name in table["id_str"][:20]]
    table.to_csv(catalog.parent / "mixed.csv", index=False)
    found = read_catalog(catalog.parent / "mixed.csv")
    assert found["file_loc"][0] == f"{bucket}/J0000.png"
    assert found["file_loc"][39] == str(catalog.parent / "images/J0039.png")
    table.loc[39, "file_loc"] = "not/a://url.png"
    table.to_csv(tmp_path / "mixed.csv", index=False)
    with pytest.raises(CatalogError, match="20 of 40 files do not exist"):
        read_catalog(tmp_path / "mixed.csv")


def test_predictions_do_not_depend_on_where_images_are(server, catalog, model_dir, tmp_path):
    table = pd.read_csv(catalog)[["id_str", "file_loc"]]
    table["file_loc"] = [f"{server}/{name}.png" for name in table["id_str"]]
    table.loc[3, "file_loc"] = f"{server}/gone.png"
    table.to_csv(tmp_path / "c.csv", index=False)
    settings = {"checkpoint_dir": model_dir, "batch_size": 8}
    done = predict(**settings, catalog=tmp_path / "c.csv", save_loc=tmp_path / "urls.parquet")
    assert (done.galaxies, done.failed) == (39, 1)
    assert f"there is no {server}/gone.png" in done.failed_loc.read_text()
    predict(**settings, catalog=catalog, save_loc=tmp_path / "disk.parquet")
    urls, disk = (pd.read_parquet(tmp_path / f"{name}.parquet").drop(columns="file_loc") for name in ("urls", "disk"))
    pd.testing.assert_frame_equal(urls, disk.drop(index=3).reset_index(drop=True), rtol=1e-4)
