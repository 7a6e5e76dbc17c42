"""Writes the sample files of this folder: one synthetic picture in every compressed transfer syntax.

    pip install numpy pydicom imagecodecs pyjpegls pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg
    python make_samples.py
    python make_samples.py --films FOLDER   # films of 2455 x 1606 for `cargo bench -p spinexr-dicom`
    python make_samples.py --time FOLDER    # how long pydicom takes to decode those

`NAME.dcm` is the film, `NAME.raw` its stored values as little-endian i32 (for lossy ones, as the reference decoder
gives them; several lossless ones share `picture.raw`). The picture is a formula: no film of a patient is in it.
"""
import pathlib
import sys
import time

import imagecodecs as ic
import jpeg_ls
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

HERE = pathlib.Path(__file__).parent
HEIGHT, WIDTH = 45, 37


def picture(bits, signed=False, colours=1):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    top = 2**bits - 1
    planes = []
    for c in range(colours):
        value = (top * (3 * x + 2 * y + 5 * c)) // (3 * WIDTH + 2 * HEIGHT + 15)
        value += ((x * 7919 + y * 104729 + c * 31) % 61) * top // 2000
        value[(y // 6 + x // 9) % 4 == 0] = top // 3  # flat parts, for runs
        value[5:9, 4:12] = 0
        value[20:26, 20:30] = top
        planes.append(np.clip(value, 0, top))
    image = np.stack(planes, -1)
    if signed:
        image = image - 2 ** (bits - 1)
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    image = image.astype(kind)
    return image[..., 0] if colours == 1 else image


def write(name, syntax, stream, stored, bits, signed=False, photometric="MONOCHROME2", raw=None, folder=HERE):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "2.25.1"
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.4." + syntax
    meta.ImplementationClassUID = "2.25.2"
    film = Dataset()
    film.file_meta = meta
    film.SOPClassUID = meta.MediaStorageSOPClassUID
    film.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    film.Modality = "DX"
    film.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    film.PhotometricInterpretation = photometric
    if film.SamplesPerPixel == 3:
        film.PlanarConfiguration = 0
    film.Rows, film.Columns = stored.shape[:2]
    film.BitsAllocated = 8 if bits <= 8 else 16
    film.BitsStored, film.HighBit = bits, bits - 1
    film.PixelRepresentation = int(signed)
    film.PixelData = encapsulate([bytes(stream)], has_bot=True)
    film["PixelData"].VR = "OB"
    film.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    if folder == HERE:
        (HERE / f"{raw or name}.raw").write_bytes(np.ascontiguousarray(stored).astype("<i4").tobytes())


def restarted(lines):
    """The 12-bit picture in JPEG-LS with a restart marker after every `lines` lines."""
    image = picture(12)
    strips = [bytes(ic.jpegls_encode(image[y : y + lines])) for y in range(0, HEIGHT, lines)]
    scans = []
    for strip in strips:
        start = strip.index(b"\xff\xda")
        start += 2 + int.from_bytes(strip[start + 2 : start + 4], "big")
        scans.append(strip[start:-2])
    whole = bytes(ic.jpegls_encode(image))
    start = whole.index(b"\xff\xda")
    header = whole[:start] + b"\xff\xdd\x00\x04" + lines.to_bytes(2, "big")
    header += whole[start : start + 2 + int.from_bytes(whole[start + 2 : start + 4], "big")]
    body = scans[0]
    for i, scan in enumerate(scans[1:]):
        body += bytes([0xFF, 0xD0 + i % 8]) + scan
    stream = header + body + b"\xff\xd9"
    assert (ic.jpegls_decode(stream) == image).all()
    return stream


def films(folder):
    """A smooth picture with a few bits of noise, which compresses about as well as a radiograph."""
    y, x = np.mgrid[0:2455, 0:1606]
    smooth = 1800 + 900 * np.sin(9 * y / 2455) + 900 * np.cos(5 * x / 1606)
    film = (smooth + np.random.default_rng(1).integers(0, 16, smooth.shape)).astype("u2")
    film8 = (film >> 4).astype("u1")
    j2k = dict(codecformat="J2K", bitspersample=12)
    for name, syntax, stream, bits in [
        ("baseline", "50", ic.jpeg8_encode(film8, level=90), 8),
        ("extended_12_bit", "51", ic.jpeg8_encode(film, level=90, bitspersample=12), 12),
        ("lossless", "70", ic.ljpeg_encode(film, bitspersample=12), 12),
        ("jpeg_ls", "80", ic.jpegls_encode(film), 12),
        ("jpeg_ls_near", "81", ic.jpegls_encode(film, level=3), 12),
        ("jpeg_2000", "90", ic.jpeg2k_encode(film, reversible=True, **j2k), 12),
        ("jpeg_2000_lossy", "91", ic.jpeg2k_encode(film, level=60, reversible=False, **j2k), 12),
        ("htj2k", "201", ic.htj2k_encode(film, reversible=True), 12),
        ("htj2k_lossy", "203", ic.htj2k_encode(film, level=0.0005, reversible=False), 12),
    ]:
        write(name, syntax, stream, film8 if bits == 8 else film, bits, folder=folder)


def time_films(folder):
    for path in sorted(folder.glob("*.dcm")):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            pydicom.dcmread(path).pixel_array
            times.append(time.perf_counter() - start)
        print(f"{path.stem:20} {1e3 * np.median(times):7.1f} ms (median of {len(times)})")


def main():
    if len(sys.argv) == 3:
        {"--films": films, "--time": time_films}[sys.argv[1]](pathlib.Path(sys.argv[2]))
        return
    p8, p12, s16 = picture(8), picture(12), picture(16, signed=True)
    u16 = s16.view("u2")
    rgb = picture(8, colours=3)
    stream = ic.jpeg8_encode(p8, level=90)
    write("baseline", "50", stream, ic.jpeg8_decode(stream), 8)
    stream = ic.jpeg8_encode(p12, level=90, bitspersample=12)
    write("extended_12_bit", "51", stream, ic.jpeg8_decode(stream), 12)
    stream = ic.ljpeg_encode(p12, bitspersample=12)
    write("lossless", "57", stream, p12, 12, raw="picture")

    write("jpeg_ls", "80", ic.jpegls_encode(p12), p12, 12, raw="picture")
    write("jpeg_ls_restarts", "80", restarted(10), p12, 12, raw="picture")
    write("jpeg_ls_signed", "80", ic.jpegls_encode(u16), s16, 16, signed=True, raw="picture_signed")
    # CharLS takes pixels for both modes that interleave.
    orders = {"plane": (2, 0, 1), "line": (0, 1, 2), "sample": (0, 1, 2)}
    for mode, (name, order) in enumerate(orders.items()):
        samples = np.ascontiguousarray(rgb.transpose(order))
        stream = jpeg_ls.encode_buffer(samples.tobytes(), HEIGHT, WIDTH, 3, 8, interleave_mode=mode)
        back, _ = jpeg_ls.decode_buffer(bytes(stream))
        assert bytes(back) == samples.tobytes()
        write(f"jpeg_ls_rgb_{name}", "80", stream, rgb, 8, photometric="RGB", raw="picture_rgb")
    stream = ic.jpegls_encode(p12, level=3)
    write("jpeg_ls_near", "81", stream, ic.jpegls_decode(stream), 12)

    j2k = dict(codecformat="J2K", bitspersample=12)
    write("jpeg_2000", "90", ic.jpeg2k_encode(p12, reversible=True, **j2k), p12, 12, raw="picture")
    j2k["bitspersample"] = 16
    stream = ic.jpeg2k_encode(s16, reversible=True, **j2k)
    write("jpeg_2000_signed", "90", stream, s16, 16, signed=True, raw="picture_signed")
    stream = ic.jpeg2k_encode(rgb, reversible=True, mct=True, codecformat="J2K")
    write("jpeg_2000_rgb", "90", stream, rgb, 8, photometric="YBR_RCT", raw="picture_rgb")
    stream = ic.jpeg2k_encode(p12, level=60, reversible=False, codecformat="J2K", bitspersample=12)
    write("jpeg_2000_lossy", "91", stream, ic.jpeg2k_decode(stream), 12)

    # OpenJPH writes RPCL, so the same stream serves both lossless syntaxes. Its depth is that of the container.
    stream = ic.htj2k_encode(p12, reversible=True)
    write("htj2k", "201", stream, p12, 12, raw="picture")
    stream = ic.htj2k_encode(p12, reversible=True, tile=(20, 16), resolutions=2)
    write("htj2k_rpcl", "202", stream, p12, 12, raw="picture")
    stream = ic.htj2k_encode(s16, reversible=True)
    write("htj2k_signed", "201", stream, s16, 16, signed=True, raw="picture_signed")
    stream = ic.htj2k_encode(rgb, reversible=True, rgb=True)
    write("htj2k_rgb", "201", stream, rgb, 8, photometric="RGB", raw="picture_rgb")
    stream = ic.htj2k_encode(p12, level=0.0005, reversible=False)
    write("htj2k_lossy", "203", stream, ic.jpeg2k_decode(stream), 12)


if __name__ == "__main__":
    main()
