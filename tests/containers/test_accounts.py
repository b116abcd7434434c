from __future__ import annotations

import pytest

from flarekit.containers.accounts import Account, find_account
from flarekit.core.errors import InputError

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a remark
user:x:1000:1001::/home/user:/bin/sh
homeless:x:7:8:::
+::::::
"""
GROUP = "root:x:0:\nuser:x:1001:\nvideo:x:44:other,user\nrender:x:105:user\nbroken:x:\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


USER = Account(uid=1000, gid=1001, groups=(44, 105), home="/home/user")


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(uid=0, gid=0, home="/root")),
        ("root", Account(uid=0, gid=0, home="/root")),
        ("user", USER),
        ("1000", USER),
        ("user:video", Account(uid=1000, gid=44, home="/home/user")),
        ("1000:1000", Account(uid=1000, gid=1000, home="/home/user")),
        ("4321", Account(uid=4321, gid=0)),
        ("4321:105", Account(uid=4321, gid=105)),
        ("4321:", Account(uid=4321, gid=0)),
        ("homeless", Account(uid=7, gid=8)),
    ],
)
def test_users_mean_what_they_mean_to_docker(root, user, account):
    assert find_account(root, user) == account


@pytest.mark.parametrize(("user", "missing"), [("bob", "user bob"), ("user:bobs", "group bobs")])
def test_unknown_names_are_named(root, user, missing):
    with pytest.raises(InputError, match=missing):
        find_account(root, user)


def test_an_image_without_a_passwd_file_has_numbers_alone(tmp_path):
    assert find_account(tmp_path, "1000:1000") == Account(uid=1000, gid=1000)
    with pytest.raises(InputError, match="unable to find user user"):
        find_account(tmp_path, "user")


def test_a_passwd_file_of_this_machine_is_not_read_through_a_link(tmp_path, root):
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/passwd").symlink_to(root / "etc/passwd")
    with pytest.raises(InputError, match="unable to find user user"):
        find_account(image, "user")
