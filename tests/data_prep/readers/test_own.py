import csv
import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from data_prep.cli import app
from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.own import write_own_csv, write_own_json
from data_prep.lookalike.world import make_world
from data_prep.readers.own import CsvReader, JsonReader
from pose3d.data.store import open_store

SPACES_WITH_DEPTH = ("world", "camera", "image+depth", "image+relative-depth")
# Joints of somebody 4 m before a camera, millimetres.
STANDING = {
    **{"Pelvis": (0, 0, 4000), "R_Hip": (-130, 0, 4000), "L_Hip": (130, 0, 4000)},
    **{"R_Knee": (-130, 440, 3980), "L_Knee": (130, 440, 3980)},
    **{"R_Ankle": (-130, 880, 4030), "L_Ankle": (130, 880, 4030)},
    **{"Torso": (0, -240, 4000), "Neck": (0, -490, 4000), "Nose": (0, -560, 3900)},
    **{"Head": (0, -680, 4000), "L_Shoulder": (150, -460, 4000), "R_Shoulder": (-150, -460, 4000)},
    **{"L_Elbow": (180, -180, 4000), "R_Elbow": (-180, -180, 4000)},
    **{"L_Wrist": (190, 60, 3950), "R_Wrist": (-190, 60, 3950)},
}
FOCAL, CENTRE, SIZE = 500.0, (319.5, 239.5), (640, 480)
CAMERA = {"camera": "front", "width": 640, "height": 480, "fx": 500, "fy": 500} | {
    "cx": 319.5,
    "cy": 239.5,
}


def pixel(position):
    x, y, z = position
    return FOCAL * x / z + CENTRE[0], FOCAL * y / z + CENTRE[1]


def cells(values):
    """Columns of joints."""
    return {
        f"{name}_{axis}": number
        for name, position in values.items()
        for axis, number in zip("xyz", position, strict=False)
    }


def line(**changes):
    """One row in the camera's frame."""
    base = {"image": "a.jpg", "space": "camera", "unit": "mm", **cells(STANDING)}
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def write_table(path, lines, *, delimiter=","):
    columns = list(dict.fromkeys(column for entry in lines for column in entry))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture
def source(tmp_path):
    """Makes a folder of these lines and cameras, with the images they name."""

    def make(*lines, cameras=(CAMERA,), delimiter=","):
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        write_table(folder / "people.csv", lines, delimiter=delimiter)
        if cameras:
            write_table(folder / "cameras.csv", cameras, delimiter=delimiter)
        for entry in lines:
            width, height = entry.get("width", 640), entry.get("height", 480)
            image = np.full((int(height), int(width), 3), 90, np.uint8)
            cv2.imwrite(str(folder / str(entry["image"])), image)
        return folder

    return make


def only_take(reader):
    (unit,) = reader.units()
    return unit.load()


def read(folder):
    return only_take(CsvReader(folder))


def store_from(reader, path, **options):
    config = ConversionConfig(crop_size_px=64, **options)
    return open_store(convert(reader, path, config=config).path)


@pytest.fixture(scope="module")
def small_world():
    return make_world(
        subjects=(9,), actions=(12,), subactions=(1,), num_poses=2, camera_names=("58860488",)
    )


@pytest.fixture(scope="module")
def small_direct(small_world, make_direct_store, tmp_path_factory):
    return make_direct_store(small_world, tmp_path_factory.mktemp("direct") / "store")


@pytest.mark.parametrize("space", SPACES_WITH_DEPTH)
@pytest.mark.parametrize("layout", ["csv", "json"])
def test_a_written_tree_gives_the_direct_store(
    layout, space, tmp_path, small_world, store_of, small_direct, assert_same_store
):
    unit = "m" if space in ("world", "image+depth") else "mm"
    if layout == "csv":
        write_own_csv(small_world, tmp_path / "tree", space=space, unit=unit)
        reader = CsvReader(tmp_path / "tree")
    else:
        write_own_json(small_world, tmp_path / "tree", space=space, unit=unit)
        reader = JsonReader(tmp_path / "tree")
    assert_same_store(store_of(reader), small_direct)


def test_subjects_and_splits_are_kept_and_a_flat_tree_has_no_weight_on_depth(tmp_path):
    world = make_world(
        subjects=(1, 9), actions=(2,), subactions=(1,), num_poses=2, camera_names=("54138969",)
    )
    write_own_csv(world, tmp_path / "tree", space="image", delimiter=";")
    store = store_from(CsvReader(tmp_path / "tree"), tmp_path / "store")
    assert set(zip(store.records.subject.tolist(), store.records.split.tolist(), strict=True)) == {
        (1, "train"),
        (9, "test"),
    }
    assert not store.records.weight[..., 2].any()
    assert store.records.weight[..., :2].all()
    lines = list(csv.DictReader((tmp_path / "tree" / "people.csv").open(), delimiter=";"))
    for row in range(len(store)):
        file = store.source_file(row).partition("#")[0]
        wanted = next(entry for entry in lines if entry["image"] == file)
        camera = store.cameras[int(store.records.camera_index[row])]
        wrist = store.records.joints_camera_mm[row, 16].astype(float)
        ray = wrist[:2] / wrist[2]
        plain = ray * camera.focal_px.numpy() + camera.principal_point_px.numpy()
        label = [float(wanted[f"R_Wrist_{axis}"].replace(",", ".")) for axis in "xy"]
        lens_px = np.hypot(*(plain - label))
        assert lens_px < 20  # the lens bends; its exact inverse is held by the other test


def test_missing_joints_have_no_weight_and_hidden_ones_are_labelled(source):
    folder = source(
        line(Nose_x=None, Nose_y=None, Nose_z=None, L_Wrist_visible=0, R_Wrist_visible=1)
    )
    take = read(folder)
    joints = ["Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso"]
    joints += ["Neck", "Nose", "Head", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder"]
    joints += ["R_Elbow", "R_Wrist"]
    for number, name in enumerate(joints):
        if name == "Nose":
            assert not take.weight[0, number].any()
            assert not take.visibility[0, number]
        else:
            assert take.weight[0, number].tolist() == [1, 1, 1]
            np.testing.assert_allclose(take.joints_camera_mm[0, number], STANDING[name])
            assert bool(take.visibility[0, number]) == (name != "L_Wrist")


def test_names_of_coco_and_mpii_are_known_and_the_pelvis_lies_between_the_hips(source):
    values = {
        **{"left_hip": (130, 0, 4000), "RHip": (-130, 20, 4100), "nose": (0, -560, 3900)},
        **{"l_knee": (130, 440, 3980), "Right Knee": (-130, 440, 3980)},
        **{"upper_neck": (0, -490, 4000), "left_eye": (20, -600, 3900)},
        **{"head_top": (0, -700, 4000)},
    }
    reader = CsvReader(source({"image": "a.jpg", "space": "camera", "unit": "mm", **cells(values)}))
    take = only_take(reader)
    np.testing.assert_allclose(take.joints_camera_mm[0, 0], [0, 10, 4050])
    np.testing.assert_allclose(take.joints_camera_mm[0, 2], values["Right Knee"])
    np.testing.assert_allclose(take.joints_camera_mm[0, 8], values["upper_neck"])
    np.testing.assert_allclose(take.joints_camera_mm[0, 10], values["head_top"])
    assert (take.weight[0, :, 0] > 0).sum() == 8
    assert any("left_eye" in note for note in reader.notes)


def test_a_thorax_of_its_own_makes_eighteen_joints(source):
    take = read(source(line(Thorax_x=1, Thorax_y=-455, Thorax_z=4001)))
    assert take.skeleton == "human36m_18"
    np.testing.assert_allclose(take.joints_camera_mm[0, 17], [1, -455, 4001])
    assert read(source(line())).skeleton == "human36m_17"


def test_without_pelvis_and_hips_no_depth_has_weight(source):
    gone = {f"{name}_{axis}": None for name in ("Pelvis", "L_Hip") for axis in "xyz"}
    take = read(source(line(**gone)))
    assert not take.weight[..., 2].any()
    assert (take.weight[0, :, 0] > 0).sum() == 15
    assert any("no weight on depth" in note for note in take.notes)


def test_depths_from_the_pelvis_need_no_root_depth_but_say_so(source):
    values = {name: (*pixel(p), p[2] - 4000) for name, p in STANDING.items()}
    row = {"image": "a.jpg", "space": "image+relative-depth", "unit": "mm", **cells(values)}
    reader = CsvReader(source(row))
    take = only_take(reader)
    depth = take.joints_camera_mm[0, :, 2]
    np.testing.assert_allclose(depth - depth[0], [p[2] - 4000 for p in order(STANDING)], atol=1e-6)
    projected = FOCAL * take.joints_camera_mm[0, :, :2] / depth[:, None] + CENTRE
    np.testing.assert_allclose(projected, [pixel(p) for p in order(STANDING)], atol=1e-6)
    assert any("root_depth" in note for note in reader.notes)
    take = read(source({**row, "root_depth": 4000}))
    np.testing.assert_allclose(take.joints_camera_mm[0], order(STANDING), atol=1e-6)


def order(values):
    """Positions in the order of human36m_17."""
    names = "Pelvis R_Hip R_Knee R_Ankle L_Hip L_Knee L_Ankle Torso Neck Nose Head L_Shoulder "
    names += "L_Elbow L_Wrist R_Shoulder R_Elbow R_Wrist"
    return [values[name] for name in names.split()]


def test_one_joint_without_depth_keeps_its_pixels_alone(source):
    values = {name: (*pixel(p), p[2]) for name, p in STANDING.items()}
    row = {"image": "a.jpg", "space": "image+depth", "unit": "mm", **cells(values)}
    take = read(source({**row, "Head_z": ""}))
    assert take.weight[0, 10].tolist() == [1, 1, 0]
    assert take.weight[0, 9].tolist() == [1, 1, 1]
    x, y, z = take.joints_camera_mm[0, 10]
    np.testing.assert_allclose(pixel((x, y, z)), pixel(STANDING["Head"]), atol=1e-6)


def test_images_without_a_camera_give_flat_labels_at_their_pixels(source, tmp_path):
    values = {name: pixel(p) for name, p in STANDING.items()}
    rows = [
        {"image": f"{n}.jpg", "space": "image", "width": w, "height": h, **cells(values)}
        for n, (w, h) in enumerate([(640, 480), (700, 500)])
    ]
    folder = source(*rows, cameras=())
    take = read(folder)
    rays = take.joints_camera_mm[..., :2] / take.joints_camera_mm[..., 2:]
    pixels = rays * take.camera.focal_px.numpy()[:, None]
    pixels += take.camera.principal_point_px.numpy()[:, None]
    np.testing.assert_allclose(pixels, [order(values)] * 2, atol=1e-6)
    store = store_from(CsvReader(folder), tmp_path / "store")
    assert store.records.image_size_px.tolist() == [[640, 480], [700, 500]]


def test_world_and_camera_axes_agree_for_a_camera_that_stands_aside(source):
    vector = np.array([0.3, -0.2, 0.1])
    turn = cv2.Rodrigues(vector)[0]
    t = np.array([100.0, -50.0, 300.0])
    world = {name: tuple(turn.T @ (np.array(p) - t)) for name, p in STANDING.items()}
    metres = {name: tuple(np.array(p) / 1000) for name, p in world.items()}
    row = {"image": "a.jpg", "space": "world", "unit": "m", **cells(metres)}
    names = ("rvec_x", "rvec_y", "rvec_z")
    by_vector = {**CAMERA, **dict(zip(names, vector, strict=True)), "unit": "mm"}
    by_vector |= {f"t_{axis}": value for axis, value in zip("xyz", t, strict=True)}
    matrix = {f"r{i + 1}{j + 1}": turn[i, j] for i in range(3) for j in range(3)}
    centre = -turn.T @ t / 1000
    by_matrix = {**CAMERA, **matrix, "unit": "m"}
    by_matrix |= {f"centre_{axis}": value for axis, value in zip("xyz", centre, strict=True)}
    for camera in (by_vector, by_matrix):
        take = read(source(row, cameras=(camera,)))
        np.testing.assert_allclose(take.joints_camera_mm[0], order(STANDING), atol=1e-6)


def test_the_box_is_used_where_there_is_one(source, tmp_path):
    box = {"box_x": 200, "box_y": 100, "box_width": 150, "box_height": 300}
    folder = source(line(**box))
    store = store_from(CsvReader(folder), tmp_path / "store")
    np.testing.assert_allclose(store.records.box_image_px[0], [275, 250, 300])


def test_frames_are_counted_where_they_are_not_given(source):
    rows = [line(image=f"{n}.jpg", subject=n % 2, action="Juggling", take=3) for n in range(5)]
    takes = [unit.load() for unit in CsvReader(source(*rows)).units()]
    assert [take.frame.tolist() for take in takes] == [[0, 1, 2], [0, 1]]
    unit = CsvReader(source(*rows)).units()[0]
    assert (unit.subject, unit.action, unit.subaction, unit.split) == (0, "Juggling", 3, "train")


def test_long_takes_are_cut_into_blocks_with_names_of_their_own(source, monkeypatch):
    monkeypatch.setattr("data_prep.readers.own.BLOCK_SIZE", 2)
    units = CsvReader(source(*[line(image=f"{n}.jpg") for n in range(5)])).units()
    assert [unit.count for unit in units] == [2, 2, 1]
    assert len({unit.name for unit in units}) == 3
    assert [frame for unit in units for frame in unit.load().frame.tolist()] == list(range(5))


def test_semicolons_with_decimal_commas_and_a_byte_order_mark_are_understood(source):
    def german(entry):
        return {
            key: str(value).replace(".", ",") if isinstance(value, float) else value
            for key, value in entry.items()
        }

    plain = read(source(line(Nose_y=-560.25), cameras=({**CAMERA, "cx": 319.5},)))
    folder = source(
        german(line(Nose_y=-560.25)), cameras=(german({**CAMERA, "cx": 319.5}),), delimiter=";"
    )
    text = (folder / "people.csv").read_text()
    empty = ";" * text.partition("\n")[0].count(";")
    (folder / "people.csv").write_text(f"\ufeff{text}{empty}\n", encoding="utf-8")
    take = read(folder)
    np.testing.assert_array_equal(take.joints_camera_mm, plain.joints_camera_mm)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Nose_x": "abc"}, "column Nose_x: expected a number, got 'abc'"),
        ({"Nose_x": "inf"}, "column Nose_x: expected a number"),
        ({"Nose_y": ""}, "column Nose_y: is empty, but the joint has other values"),
        ({"space": "wrld"}, "column space: unknown value 'wrld'; expected one of world"),
        ({"unit": "inch"}, "column unit: unknown value 'inch'; expected one of mm, cm, m"),
        ({"unit": ""}, "column unit: is empty; expected one of"),
        ({"camera": "side"}, "column camera: unknown camera 'side'; known: front"),
        ({"subject": "Anna"}, "column subject: expected a whole number"),
        ({"frame": "1.5"}, "column frame: expected a whole number"),
        ({"split": "val"}, "column split: unknown value 'val'; expected one of train, test"),
        ({"Nose_visible": "perhaps"}, "column Nose_visible: expected 1 or 0"),
        ({"box_width": ""}, "column box_width: is empty"),
        ({"box_width": -5}, "column box_width: is -5 px, expected more than 0"),
        ({"space": "image"}, "column Pelvis_z: is given, but space is image"),
        ({"space": "world"}, "column space: is world, but the camera has no rotation"),
        ({"Nose_z": -4000}, "Nose lies behind the camera"),
    ],
)
def test_a_bad_cell_is_named_by_file_line_and_column(source, tmp_path, changes, message):
    box = {"box_x": 200, "box_y": 100, "box_width": 150, "box_height": 300}
    rows = [line(image=f"{n}.jpg", frame=n, **box) for n in range(3)]
    rows[1] |= changes
    folder = source(*rows)
    with pytest.raises(ValueError, match=rf"people.csv, line 3: {message}"):
        convert(CsvReader(folder), tmp_path / "strict", config=ConversionConfig(crop_size_px=32))
    config = ConversionConfig(crop_size_px=32, on_error="skip")
    result = convert(CsvReader(folder), tmp_path / "store", config=config)
    assert (result.num_records, len(result.skipped)) == (2, 1)


def test_two_people_with_one_name_are_refused_by_line(source, tmp_path):
    folder = source(line(frame=4), line(frame=4))
    with pytest.raises(ValueError, match=r"line 3: column frame: 4 is that of line 2 already"):
        convert(CsvReader(folder), tmp_path / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"R_Writs_x": 1}, r"unknown column 'R_Writs_x'; did you mean R_Wrist_x\?"),
        ({"left_hip_x": 1}, "columns L_Hip and left_hip are both the L_Hip"),
    ],
)
def test_a_foreign_column_is_named(source, changes, message):
    with pytest.raises(ValueError, match=rf"people.csv.*{message}"):
        CsvReader(source(line(**changes)))
    CsvReader(source(line(_remark="sunny")))


def test_metres_called_millimetres_are_refused_and_the_other_way_round(source):
    metres = cells({name: tuple(v / 1000 for v in p) for name, p in STANDING.items()})
    with pytest.raises(ValueError, match=r"column unit: people are 1.56 mm large.*say m if"):
        CsvReader(source(line(**metres)))
    with pytest.raises(ValueError, match=r"column unit: people are 1.56e\+06 mm large"):
        CsvReader(source(line(unit="m")))
    take = read(source(line(unit="m", **metres)))
    np.testing.assert_allclose(take.joints_camera_mm[0], order(STANDING), atol=1e-9)


def placed(rotation, place, *, kind="centre"):
    """A camera with this rotation and place."""
    matrix = {f"r{i + 1}{j + 1}": rotation[i, j] for i in range(3) for j in range(3)}
    place = {f"{kind}_{axis}": value for axis, value in zip("xyz", place, strict=True)}
    return {**CAMERA, **matrix, **place, "unit": "mm"}


def test_a_camera_stated_the_wrong_way_round_is_recognised(source):
    turn = cv2.Rodrigues(np.array([1.8, 0.9, 0.2]))[0]
    centre = np.array([-1300.0, -2000.0, 2800.0])  # no wrong reading has people in view by chance
    world = {name: tuple(turn.T @ np.array(p) + centre) for name, p in STANDING.items()}
    row = {"image": "a.jpg", "space": "world", "unit": "mm", **cells(world)}
    t = -turn @ centre
    read(source(row, cameras=(placed(turn, centre),)))
    read(source(row, cameras=(placed(turn, t, kind="t"),)))
    wrong = {
        "t read as the camera's centre": placed(turn, centre, kind="t"),
        "the centre read as t": placed(turn, t),
        "R transposed": placed(turn.T, centre),
        "the inverse of R and t": placed(turn.T, centre, kind="t"),
        "places in metres": placed(turn, centre / 1000),
    }
    for advice, camera in wrong.items():
        with pytest.raises(ValueError, match=rf"people.csv: of 1 people in space world .*{advice}"):
            CsvReader(source(row, cameras=(camera,)))


def test_axes_of_opengl_and_shares_for_pixels_are_recognised(source):
    turned = {name: (x, -y, -z) for name, (x, y, z) in STANDING.items()}
    with pytest.raises(ValueError, match=r"y and z turned round \(x right, y down, z forward"):
        CsvReader(source(line(**cells(turned))))
    shares = {name: (pixel(p)[0] / 6400, 2) for name, p in STANDING.items()}
    row = {"image": "a.jpg", "space": "image", **cells(shares)}
    outside = {name: (x - 1, y) for name, (x, y) in shares.items()}
    with pytest.raises(ValueError, match="must be pixels, not shares"):
        CsvReader(source({**row, **cells(outside)}))


def test_an_image_that_lies_on_its_side_is_told_apart_from_a_foreign_one(source, tmp_path):
    folder = source(line())
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((640, 480, 3), np.uint8))
    with pytest.raises(ValueError, match=r"480×640 px, .*640×480 px; .*EXIF"):
        convert(CsvReader(folder), tmp_path / "store")
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((500, 480, 3), np.uint8))
    with pytest.raises(ValueError, match="both must be of one release"):
        convert(CsvReader(folder), tmp_path / "other")


def test_missing_tables_images_and_other_encodings_are_named(source, tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}/people.csv is missing"):
        CsvReader(tmp_path)
    folder = source(line())
    with pytest.raises(ValueError, match=r"table of cameras .*gone.csv cannot be read"):
        CsvReader(folder, cameras=folder / "gone.csv")
    (folder / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"a.jpg#line 2: image .*a.jpg is missing"):
        convert(CsvReader(folder), tmp_path / "store")
    (folder / "people.csv").write_bytes("image,Größe\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"people.csv is not UTF-8 text"):
        CsvReader(folder)
    (folder / "people.csv").write_text("image,Nose_x,Nose_y\na.jpg\n")
    with pytest.raises(ValueError, match=r"people.csv, line 2 has 1 cells, the header 3"):
        CsvReader(folder)
    (folder / "people.csv").write_text("image,space\na.jpg,camera\n")
    with pytest.raises(ValueError, match=r"people.csv has no joint columns"):
        CsvReader(folder)
    (folder / "people.csv").write_text("image,space,Nose_x,Nose_y\n")
    with pytest.raises(ValueError, match=r"people.csv has no people"):
        CsvReader(folder)


def json_source(tmp_path, change):
    """A JSON file of one person, changed."""
    content = {
        "defaults": {"space": "camera", "unit": "mm"},
        "cameras": [dict(CAMERA)],
        "people": [{"image": "a.jpg", "joints": {name: list(p) for name, p in STANDING.items()}}],
    }
    change(content)
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    return path


def test_json_says_the_same_as_csv(source, tmp_path):
    def change(content):
        person = content["people"][0]
        person["box"] = [200, 100, 150, 300]
        person["visible"] = {"L_Wrist": False}
        person["joints"]["Nose"] = None
        person["joints"]["left_ear"] = [30, -600, 3900]

    found = only_take(JsonReader(json_source(tmp_path, change)))
    box = {"box_x": 200, "box_y": 100, "box_width": 150, "box_height": 300}
    plain = read(source(line(Nose_x=None, Nose_y=None, Nose_z=None, L_Wrist_visible=0, **box)))
    for name in ("joints_camera_mm", "weight", "visibility", "box_xywh_px", "frame"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["people"][0]["joints"].update(Nose=[1, "b", 3]),
            r"people.json, people\[0\]: joints.Nose\[1\]: expected a number, got 'b'",
        ),
        (
            lambda c: c["people"][0]["joints"].update(Nose=[1]),
            r"people.json, people\[0\], joints.Nose: expected 3 numbers, got 1",
        ),
        (
            lambda c: c["people"][0].update(joint={}),
            r"people\[0\]: unknown key 'joint'",
        ),
        (lambda c: c["people"].append(3), r"people\[1\]: expected an object, got 3"),
        (lambda c: c.update(persons=[]), "unknown key 'persons'.*people"),
        (
            lambda c: c["cameras"][0].pop("fx"),
            r"people.json, cameras\[0\], fx: is empty, expected a number",
        ),
        (lambda c: c["cameras"][0].update(R=[[1, 0], [0, 1]]), r"R: expected 9 numbers, got 4"),
        (lambda c: c.update(people=[]), "people.json has no joint columns"),
    ],
)
def test_a_fault_in_json_is_named_by_its_place(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        JsonReader(json_source(tmp_path, change))


def test_the_verbs_convert_what_the_look_alikes_write(tmp_path):
    runner = CliRunner()
    options = ["--subjects", "1", "--actions", "2", "--subactions", "1", "--poses", "1"]
    for layout in ("csv", "json", "coco-json", "mpii-json"):
        tree, store = str(tmp_path / layout), tmp_path / f"{layout}-store"
        assert runner.invoke(app, ["lookalike", layout, tree, *options]).exit_code == 0
        result = runner.invoke(app, [layout, tree, str(store), "--size", "32", "--jobs", "1"])
        assert result.exit_code == 0, result.output
        assert len(open_store(store)) == 4
