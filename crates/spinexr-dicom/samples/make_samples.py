"""Writes the sample files of this folder: one synthetic picture in every compressed transfer syntax.

    pip install numpy pydicom imagecodecs pyjpegls pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg
    apt-get install libopenjp2-tools openjph-tools
    python make_samples.py
    python make_samples.py --films FOLDER   # films of 2455 x 1606 for `cargo bench -p spinexr-dicom`
    python make_samples.py --time FOLDER    # how long pydicom takes to decode those

`NAME.dcm` is the film, `NAME.raw` its stored values as little-endian i32 (for lossy ones, as the reference decoder
gives them; several lossless ones share `picture.raw`). The picture is a formula: no film of a patient is in it.
"""
import pathlib
import struct
import subprocess
import sys
import tempfile
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


def opj(image, bits, *options, signed=False):
    """A JPEG 2000 stream by OpenJPEG's program, which knows every code-block style and order."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = pathlib.Path(folder, "x.rawl"), pathlib.Path(folder, "x.j2k")
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        raw.write_bytes(np.ascontiguousarray(planes).tobytes())
        size = f"{WIDTH},{HEIGHT},{len(planes)},{bits},{'s' if signed else 'u'}"
        subprocess.run(["opj_compress", "-i", raw, "-o", out, "-F", size, *options], check=True, capture_output=True)
        return out.read_bytes()


def ojph(image, bits, *options):
    """An HTJ2K stream by OpenJPH's program."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = pathlib.Path(folder, "x.pgm"), pathlib.Path(folder, "x.j2c")
        head = f"P5\n{WIDTH} {HEIGHT}\n{2**bits - 1}\n".encode()
        raw.write_bytes(head + image.astype(">u2" if bits > 8 else "u1").tobytes())
        subprocess.run(["ojph_compress", "-i", raw, "-o", out, *options], check=True, capture_output=True)
        return out.read_bytes()


def refined():
    """An HTJ2K stream whose one code block has all three passes, which OpenJPH does not write: the picture at 11 bits
    by OpenJPH, without wavelets, put under a header of 12 bits with refinements of no meaning behind it."""
    stream = ojph(picture(12) >> 1, 11, "-reversible", "true", "-num_decomps", "0")
    start = stream.index(b"\xff\x93") + 2
    bits, owners = "", []
    for at in range(start, start + 16):
        taken = 7 if stream[at - 1] == 0xFF else 8
        bits += f"{stream[at]:08b}"[-taken:]
        owners += [at] * taken
    assert bits[:2] == "11"  # a packet, with the block
    planes = bits.index("1", 2) - 2
    at = 3 + planes
    assert bits[at] == "0"  # one pass
    width = 3 + bits.index("0", at + 1) - at - 1
    at = bits.index("0", at + 1) + 1
    length = int(bits[at : at + width], 2)
    first = owners[at + width - 1] + 1
    cleanup = stream[first : first + length]
    # No byte that would need a stuffed bit, read from either end.
    more = bytes(np.random.default_rng(3).integers(0, 0x7F, 400).astype("u1"))
    width = 12
    head = "11" + "0" * planes + "1" + "1100" + "1" * (width - 3) + "0"
    head += f"{length:0{width}b}" + f"{len(more):0{width + 1}b}"
    packet, ones = bytearray(), False
    while head:
        take = 7 if ones else 8
        packet.append(int(head[:take].ljust(take, "0"), 2))
        head, ones = head[take:], packet[-1] == 0xFF
    assert not ones
    out = bytearray(stream[: stream.index(b"\xff\x90")])
    out[out.index(b"\xff\x51") + 40] = 11  # a depth of 12 bits
    quantisation = out.index(b"\xff\x5c")
    out[quantisation + 5] += 1 << 3  # and one more bit plane
    body = bytes(packet) + cleanup + more
    out += b"\xff\x90\x00\x0a\x00\x00" + struct.pack(">I", 14 + len(body)) + b"\x00\x01\xff\x93"
    return bytes(out) + body + b"\xff\xd9"


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

    # Every code-block style, three layers, precincts, tiles that do not begin where the image does, markers.
    tiled = ["-d", "5,3", "-T", "2,1", "-t", "24,24", "-c", "[16,16],[8,16]", "-n", "3", "-SOP", "-EPH"]
    stream = opj(p12, 12, "-M", "47", "-r", "20,6,1", "-p", "PCRL", "-b", "8,16", *tiled)
    write("jpeg_2000_styles", "90", stream, p12, 12, raw="picture")
    stream = opj(s16, 16, "-M", "1", "-r", "12,4,1", "-p", "RLCP", "-TP", "R", signed=True)
    write("jpeg_2000_bypass", "90", stream, s16, 16, signed=True, raw="picture_signed")
    changes = "T0=0,0,1,3,3,RPCL/T0=0,0,2,6,3,CPRL"
    stream = opj(rgb, 8, "-POC", changes, "-r", "8,1", "-ROI", "c=1,U=3", "-mct", "0")
    write("jpeg_2000_changes", "90", stream, rgb, 8, photometric="RGB", raw="picture_rgb")
    stream = opj(p12, 12, "-I", "-M", "5", "-r", "16,5", "-p", "LRCP", "-b", "16,8", "-d", "1,1")
    write("jpeg_2000_lossy_bypass", "91", stream, ic.jpeg2k_decode(stream), 12)
    stream = ojph(p12, 12, "-reversible", "true", "-block_size", "{16,4}", "-prog_order", "CPRL", "-image_offset", "{3,5}")
    write("htj2k_blocks", "201", stream, p12, 12, raw="picture")
    stream = refined()
    stored = ic.jpeg2k_decode(stream)
    # OpenJPH gives values out of range as they are.
    assert (stored == np.clip(ic.htj2k_decode(stream).astype("i2"), 0, 4095)).all()
    write("htj2k_refined", "203", stream, stored, 12)

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
