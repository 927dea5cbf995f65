"""Failed installations: they keep their downloads for another attempt, unless these are no model."""

from invokeclone.models.records.placement import DOWNLOAD_PREFIX
from invokeclone.models.records.schemas import ModelRecordChanges
from tests.fake_downloads import done, until


async def test_a_failed_registration_keeps_its_downloads_for_another_request(resources, installer, fake_hub, make):
    """A request with other fields is the same job, and downloads nothing again but what has changed."""
    folder = make.pipeline()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    fake_hub.repository("owner/name", files)
    job = await done(await installer.add("owner/name", ModelRecordChanges(base="sdxl")))
    assert (job.status, job.error_reason) == ("error", "UnidentifiedModel")
    assert await installer.restart_failed(job.id) is job
    await done(job)
    assert job.error_reason == "UnidentifiedModel"
    weights = fake_hub.page("owner/name", "unet/diffusion_pytorch_model.safetensors")
    weights.statuses = [404] * 9
    again = await installer.add("owner/name", ModelRecordChanges(name="mine", key="k"))
    assert again is job
    await done(job)
    assert (job.status, job.error, job.config_out.name, job.config_out.key) == ("completed", None, "mine", "k")
    await until(lambda: not any(True for _ in resources.settings.models_path.glob(f"{DOWNLOAD_PREFIX}*")))


async def test_a_failed_registration_of_a_url_keeps_its_download(installer, fake_web, make):
    page = fake_web.page("/m.safetensors", make.checkpoint().read_bytes())
    url = f"{fake_web.url}/m.safetensors"
    with installer.guard.lock("k"):
        job = await done(await installer.add(url, ModelRecordChanges(key="k")))
    assert (job.status, job.error_reason) == ("error", "ModelBusy")
    page.statuses = [404] * 9
    assert await installer.add(url, ModelRecordChanges()) is job
    await done(job)
    assert (job.status, job.error) == ("completed", None)


async def test_a_web_page_saved_as_a_model_is_downloaded_again(installer, fake_web, make):
    page = fake_web.page("/m.safetensors", b"please sign in")
    url = f"{fake_web.url}/m.safetensors"
    job = await done(await installer.add(url, ModelRecordChanges()))
    assert (job.status, job.error_reason) == ("error", "InvalidModel")
    page.data = make.checkpoint().read_bytes()
    assert await installer.add(url, ModelRecordChanges()) is job
    await done(job)
    assert (job.status, job.error) == ("completed", None)
