"""Intersection obeys its laws for every permission, and means what sets of points would mean."""

import itertools

import policies_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.permissions import (
    PERMISSION_NAMES,
    Atom,
    PermissionSet,
    format_atom,
    intersect,
    parse_permission,
    parse_value,
    permission_to_plain,
    support_needed,
    to_plain,
    uncovered,
    union,
    without_denied,
)


@given(kit.pairs_of_one_kind())
def test_intersection_is_commutative(pair):
    a, b = pair
    assert intersect(a, b) == intersect(b, a)


@given(kit.pairs_of_one_kind(count=3))
def test_intersection_is_associative(three):
    a, b, c = three
    assert intersect(intersect(a, b), c) == intersect(a, intersect(b, c))


@given(kit.pairs_of_one_kind(count=1))
def test_intersection_is_idempotent(one):
    (a,) = one
    assert intersect(a, a) == a


@given(kit.pairs_of_one_kind())
def test_intersection_never_widens_either_side(pair):
    a, b = pair
    met = intersect(a, b)
    assert not uncovered(met, a)
    assert not uncovered(met, b)


@given(kit.pairs_of_one_kind(count=3))
def test_intersection_is_the_widest_that_both_cover(three):
    a, b, c = three
    if not uncovered(c, a) and not uncovered(c, b):
        assert not uncovered(c, intersect(a, b))


@given(kit.pairs_of_one_kind(count=3))
def test_intersection_distributes_over_union(three):
    a, b, c = three
    left = intersect(a, union(a.name, (b, c)))
    assert left == union(a.name, (intersect(a, b), intersect(a, c)))


@given(kit.pairs_of_one_kind())
def test_union_covers_both_and_is_one_of_them_when_one_covers_the_other(pair):
    a, b = pair
    both = union(a.name, pair)
    assert not uncovered(a, both)
    assert not uncovered(b, both)
    if not uncovered(a, b):
        assert both == b


@given(kit.pairs_of_one_kind())
def test_what_is_left_of_a_denial_has_nothing_in_common_with_it(pair):
    asked, denied = pair
    left = without_denied(asked, {asked.name: denied})
    assert set(left.atoms) <= set(asked.atoms)
    assert intersect(left, denied).atoms == ()
    assert all(
        intersect(PermissionSet(asked.name, (a,)), denied).atoms for a in set(asked.atoms) - set(left.atoms)
    )


@given(kit.pairs_of_one_kind(count=1))
def test_a_value_survives_being_written_and_read(one):
    (a,) = one
    assert parse_value(a.name, to_plain(a)) == a


@given(kit.permissions())
def test_a_permission_survives_being_written_and_read(permission):
    assert parse_permission(permission_to_plain(permission)) == permission


@given(kit.permissions())
def test_every_atom_can_be_told_to_people(permission):
    for atom in permission.value.atoms:
        assert format_atom(permission.name, atom).startswith(permission.name)
        assert support_needed(permission.name, atom)[0] == permission.name


def test_values_of_different_permissions_do_not_intersect():
    with pytest.raises(RuntimeError):
        intersect(PermissionSet("env", ()), PermissionSet("exec", ()))


# Against an independent reading: a value is the set of points it covers -----------------------------------------

_DEPTH = 3
_PATHS = [
    ("$OUTPUT", *parts) for depth in range(_DEPTH + 1) for parts in itertools.product("ab", repeat=depth)
] + [("", "srv", *parts) for depth in range(_DEPTH + 1) for parts in itertools.product("ab", repeat=depth)]
_PATH_POINTS = [(path, executes) for path in _PATHS for executes in (False, True)]
_path_values = st.lists(
    st.sampled_from([(path, executes) for path, executes in _PATH_POINTS if len(path) <= 4]),
    min_size=1,
    max_size=3,
).map(
    lambda atoms: parse_value(
        "fs.write", [{"path": "/".join(p), "access": "rwx" if x else "rw"} for p, x in atoms]
    )
)


def _path_points(value):
    """Every (path, executes) for which some atom names the path or a parent, with enough access."""
    return {
        (path, executes)
        for path, executes in _PATH_POINTS
        for atom in value.atoms
        if path[: len(atom.text.split("/"))] == tuple(atom.text.split("/"))
        and (atom.word == "rwx" or not executes)
    }


@given(_path_values, _path_values)
def test_paths_intersect_as_the_sets_of_files_below_them(a, b):
    assert _path_points(intersect(a, b)) == _path_points(a) & _path_points(b)


@given(_path_values, _path_values)
def test_a_path_covers_exactly_what_is_below_it(a, b):
    assert (not uncovered(a, b)) == (_path_points(a) <= _path_points(b))


_HOST_POINTS = [
    (host, port)
    for host in ("com", "a.com", "b.a.com", "c.b.a.com", "ba.com", "1.2.3.4")
    for port in (80, 443)
]
_host_values = st.lists(
    st.builds(
        "{}:{}".format,
        st.sampled_from(["any", "a.com", "b.a.com", "*.a.com", "*.b.a.com", "*.com", "1.2.3.4"]),
        st.sampled_from(["*", "80", "443"]),
    ),
    min_size=1,
    max_size=3,
).map(lambda raw: parse_value("net", raw))


def _host_points(value):
    points = set()
    for host, port in _HOST_POINTS:
        for atom in value.atoms:
            labels, wanted = host.split("."), atom.text.removeprefix("*.").split(".")
            if atom.text == "any":
                named = True
            elif atom.text.startswith("*."):
                named = len(labels) > len(wanted) and labels[-len(wanted) :] == wanted
            else:
                named = labels == wanted
            if named and atom.number in (0, port):
                points.add((host, port))
    return points


@given(_host_values, _host_values)
def test_hosts_intersect_as_the_sets_of_addresses_they_name(a, b):
    assert _host_points(intersect(a, b)) == _host_points(a) & _host_points(b)


@given(_host_values)
def test_a_wildcard_never_means_the_apex(value):
    if value.atoms == (Atom("*.a.com", "", 443),):
        assert ("a.com", 443) not in _host_points(value)


def test_every_permission_has_laws_tested():
    assert set(kit.VALUES) == set(PERMISSION_NAMES)
