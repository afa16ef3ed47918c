"""3MF: units, build items, components, transforms; packages are written by hand here."""

import io
import zipfile

import numpy as np
import pytest

from controller.errors import GeometryError
from controller.geometry import load_part
from tests.unit.geometry_parts import box, shared_part

TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" '
    'ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)


def mesh_xml(mesh):
    vertices, faces = mesh
    rows = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in vertices)
    triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces)
    return f"<mesh><vertices>{rows}</vertices><triangles>{triangles}</triangles></mesh>"


def save(tmp_path, resources, build, unit="millimeter"):
    model = (
        f'<?xml version="1.0" encoding="UTF-8"?><model unit="{unit}" xml:lang="en-US" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
        f"<resources>{resources}</resources><build>{build}</build></model>"
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("[Content_Types].xml", TYPES)
        package.writestr("_rels/.rels", RELATIONS)
        package.writestr("3D/3dmodel.model", model)
    path = tmp_path / "part.3mf"
    path.write_bytes(out.getvalue())
    return path


OBJECT = f'<object id="1" type="model" name="box">{mesh_xml(box(1, 2, 3))}</object>'


@pytest.mark.parametrize(
    ("unit", "factor", "name"),
    [("micron", 1e-3, "micron"), ("millimeter", 1, "mm"), ("inch", 25.4, "inch"),
     ("meter", 1000, "m"), ("foot", 304.8, "foot"), ("centimeter", 10, "cm")],
)  # fmt: skip
def test_the_file_s_unit_counts(tmp_path, unit, factor, name):
    part = load_part(save(tmp_path, OBJECT, '<item objectid="1"/>', unit))
    assert np.ptp(part.vertices_mm, axis=0) == pytest.approx(np.array([1, 2, 3]) * factor)
    assert part.units == name
    assert part.solids == ("box",)


def test_components_and_transforms_are_chained_in_order(tmp_path):
    # component: stretched by 2 along x and moved by 10 in x; item: quarter turn about z
    group = (
        '<object id="2" type="model" name="group"><components>'
        '<component objectid="1" transform="2 0 0 0 1 0 0 0 1 10 0 0"/>'
        '<component objectid="1"/></components></object>'
    )
    item = '<item objectid="2" transform="0 1 0 -1 0 0 0 0 1 0 0 5"/>'
    part = load_part(save(tmp_path, OBJECT + group, item))
    assert part.volume_mm3 == pytest.approx(12 + 6)
    low, high = part.bounds_mm
    assert low == pytest.approx([-2, 0, 5])
    assert high == pytest.approx([0, 12, 8])


def test_a_mirrored_item_is_not_inside_out(tmp_path):
    item = '<item objectid="1" transform="-1 0 0 0 1 0 0 0 1 0 0 0"/>'
    part = load_part(save(tmp_path, OBJECT, item))
    assert part.volume_mm3 == pytest.approx(6.0)
    assert part.notes == ()


def test_only_what_the_build_names_is_read(tmp_path):
    other = f'<object id="3" type="model" name="spare">{mesh_xml(box(9, 9, 9))}</object>'
    assert load_part(save(tmp_path, OBJECT + other, '<item objectid="1"/>')).solids == ("box",)


@pytest.mark.parametrize(
    ("resources", "build", "says"),
    [
        (OBJECT, "", "its build holds no mesh"),
        (OBJECT, '<item objectid="7"/>', "not a valid 3MF file"),
        (OBJECT.replace('v3="1"', 'v3="99"', 1), '<item objectid="1"/>', "3MF"),
        ("<wrong/>", '<item objectid="1"/>', "not a valid 3MF file"),
    ],
)
def test_wrong_content_is_refused(tmp_path, resources, build, says):
    path = save(tmp_path, resources, build)
    with pytest.raises(GeometryError, match=says) as caught:
        load_part(path)
    assert "part.3mf" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_units_option_is_refused(tmp_path):
    path = save(tmp_path, OBJECT, '<item objectid="1"/>')
    with pytest.raises(GeometryError, match="carries its own unit"):
        load_part(path, units="inch")


def test_a_package_that_unpacks_too_far_is_refused(tmp_path, monkeypatch):
    from controller.geometry import threemf

    path = save(tmp_path, OBJECT, '<item objectid="1"/>')
    monkeypatch.setattr(threemf, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(GeometryError, match="at most 1000"):
        load_part(path)


@pytest.mark.slow
def test_shared_gears():
    part = load_part(shared_part("heartgears.3mf"))
    assert len(part.faces) > 30_000
    assert part.volume_mm3 == pytest.approx(120_179, rel=1e-3)
