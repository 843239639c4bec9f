"""Advice for lines copied from a requirements.txt or a pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gitsource.requirement_lines import InRepo, Kind, advice, in_repo

OPTIONS = [
    ("-r base.txt", "without the option: requirements: [base.txt]"),
    ("-rbase.txt", "requirements: [base.txt]"),
    ("--requirement=base.txt", "requirements: [base.txt]"),
    ("-r https://me:pw@h.example/r.txt", "save https://h.example/r.txt as a file"),
    ("-c ../limits.txt", "constraints: [limits.txt]"),
    ("-c https://me:pw@h.example/c.txt", "save what else you need of https://h.example/c.txt as"),
    ("-i https://me:pw@h.example/simple", "indexes: [{name: corp, url: https://h.example/simple,"),
    ("--index-url", "url: https://host.example/simple/"),
    ("--extra-index-url 'https://h.example/simple'", "url: https://h.example/simple,"),
    ("-f /wheels", "upload them to a package index"),
    ("--no-binary=lxml", "`sourceBuilds`"),
    ("--only-binary :all:", "remove it"),
    ("--pre", "such as acme>=2.0rc1"),
    ("-U", "`groundcrew refresh`"),
    ("--trusted-host h.example", "`caBundle`"),
    ("--config-settings x=y", "`build`"),
    ("--require-hashes", "the lock records the hash"),
    ("--no-such-option", "options of pip are not supported"),
    ("-", "options of pip are not supported"),
]
DECORATED = [
    ("numpy==1.26.4 --hash=sha256:aa --hash=sha256:bb", "write numpy==1.26.4 alone"),
    ("numpy==1.26.4 --no-binary numpy", "write numpy==1.26.4 alone; name the package in the key"),
    ("numpy==1.26.4 \\", "write each requirement in one line"),
    ("numpy<2 # until pandas follows", "outside of any quotes: - numpy<2  # why"),
    ("# numpy<2", "outside of any quotes"),
    ("pip install numpy", "without the command"),
    ("poetry add numpy", "without the command"),
    ("numpy==${NUMPY}", "variables are not replaced"),
    ("{{ package }}==1.0", "variables are not replaced"),
]
SOURCES = [
    ("-e ./packages/etl", "`etl @ ./packages/etl`"),
    ("-e ./packages/etl[io]", "`etl[io] @ ./packages/etl`"),
    ("../common/etl", "`etl @ ../common/etl`"),
    ("packages/etl-1.0-py3-none-any.whl", "write etl==1.0"),
    ("etl @ packages/etl", "`etl @ ./packages/etl`"),
    ("etl @ file:packages/etl", "`etl @ ./packages/etl`"),
    ("etl @ ./packages/etl; python_version > '3'", "cannot have markers"),
    ("etl @ file:///srv/etl", "`etl @ ./packages/etl`"),
    ("/srv/etl", "a path of one machine"),
    (".", "`acme @ ./packages/acme`"),
    ("etl @ ./dist/etl-2.1.tar.gz", "write etl==2.1"),
    ("https://h.example/w/etl-2.1-py3-none-any.whl#sha256=aa", "write etl==2.1"),
    ("git+ssh://git@h.example/team/etl.git@main#egg=etl-core", "write etl-core>=version"),
    ("git@h.example:team/etl.git", "write etl>=version"),
    ("-e git+https://h.example/etl", "write etl>=version"),
    ("hg+https://h.example/etl", "write etl>=version"),
    ("etl @ https://[", "write etl>=version"),
    ("etl @ ./packages/etl[io]", "`etl[io] @ ./packages/etl`"),
    ("~/etl", "a path of one machine"),
    ("C:\\src\\etl", "a path of one machine"),
    ("etl = {path = '../etl', extras = ['io'], develop = true}", "`etl[io] @ ../etl`"),
    ("etl = {git = 'https://h.example/etl.git', tag = 'v1'}", "write etl>=version"),
    ("etl = {url = 'https://h.example/etl-2.1-py3-none-any.whl'}", "write etl==2.1"),
    ("'./packages/etl',", "`etl @ ./packages/etl`"),
]
VERSIONS = [
    ('boto3 = "^1.34"', "boto3>=1.34,<2"),
    ("boto3 = '~1.34.2'", "boto3>=1.34.2,<1.35"),
    ('boto3 = "*"', "boto3"),
    ('boto3 = ">=1.34,<2"', "boto3>=1.34,<2"),
    ("boto3^0.2.3", "boto3>=0.2.3,<0.3"),
    ("boto3^0.0.3", "boto3>=0.0.3,<0.0.4"),
    ("boto3@^1.34", "boto3>=1.34,<2"),
    ("boto3@1.34", "boto3==1.34"),
    ("boto3@latest", "boto3"),
    ("boto3=1.34.0", "boto3==1.34.0"),
    ("boto3 1.34", "boto3==1.34"),
    ("boto3 v1.34", "boto3==1.34"),
    ("boto3 >=1.34 <2", "boto3>=1.34,<2"),
    ("boto3=>1.34", "boto3>=1.34"),
    ("boto3==1.34.x", "boto3==1.34.*"),
    ("boto3>=1.34.*", "boto3>=1.34"),
    ("boto3[crt]=1.34", "boto3[crt]==1.34"),
    ('"boto3>=1.34,<2",', "boto3>=1.34,<2"),
    ("- boto3==1.34", "boto3==1.34"),
    ("- 'boto3^1.34'", "boto3>=1.34,<2"),
    ('boto3=="1.34"', "boto3==1.34"),
    ("boto3>1.34<2", "boto3>1.34,<2"),
    ("boto3>=latest", "boto3"),
    ("conda-forge::boto3=1.34", "boto3==1.34"),
    ("boto3 = {version = '^1.34', extras = ['crt']}", "boto3[crt]>=1.34,<2"),
    ("boto3 = {version = '*', optional = true}", "boto3"),
    ('boto3 = "^1.34"; python_version < "3.13"', 'boto3>=1.34,<2; python_version < "3.13"'),
]
HOPELESS = [
    ("boto3 > dev", "write for example boto3>=1.2,<2"),
    ("boto3 botocore", "an item of its own"),
    ("boto3, botocore", "an item of its own"),
    ("boto3; on linux", "is not a valid marker"),
    ("boto3 = {version = 1.2.3}", "write for example boto3"),
    ("boto3 = {version = '>>1'}", "write for example boto3"),
    ("boto3==1.34 botocore==1.34", "an item of its own"),
    ("python>=3.11", "the Python is the one of the Airflow image"),
    ("'", "write for example pandas>=2.2"),
    ("boto3[a b]", "write for example boto3"),
    ('python = "^3.11"', "the Python is the one of the Airflow image"),
    ("==1.0", "write for example pandas>=2.2"),
    ("a" * 5000, "longer than 4096"),
    ("boto3\x07", "control character"),
]
SOUND = [
    "boto3",
    "Boto3 >=1.34, <2 ; python_version >= '3.9'",
    "numpy == 1.26.*",
    "boto3[crt]~=1.34",
    "requests (>=2)",
    "apache-airflow[celery]==3.0.1",
    "etl @ ./packages/etl",
    "etl[a,b]@../etl",
    "a==1+local.1",
    "a===weird",
]


@pytest.mark.parametrize(("line", "words"), [*OPTIONS, *DECORATED, *SOURCES, *HOPELESS])
def test_a_line_is_answered_with_what_to_write(line: str, words: str) -> None:
    answer = advice(line, Kind.REQUIREMENT)
    assert words in answer
    assert "pw@" not in answer


@pytest.mark.parametrize(("line", "requirement"), VERSIONS)
def test_versions_of_other_tools_are_translated(line: str, requirement: str) -> None:
    """The answer is a valid requirement."""
    answer = advice(line, Kind.REQUIREMENT)
    assert answer.removesuffix(" alone") == f"write {requirement}"
    assert advice(requirement, Kind.REQUIREMENT) == ""
    assert Requirement(requirement)


@pytest.mark.parametrize("line", SOUND)
def test_a_sound_requirement_needs_no_answer(line: str) -> None:
    assert advice(line, Kind.REQUIREMENT) == ""


@pytest.mark.parametrize("line", [line for line, _ in (*OPTIONS, *DECORATED, *SOURCES, *HOPELESS)])
def test_a_constraint_is_never_any_of_these(line: str) -> None:
    """Comments are an exception, as a constraints file may have them."""
    if "#" not in line:
        assert advice(line, Kind.CONSTRAINT)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Etl @ ./packages/etl", InRepo("Etl", (), "./packages/etl")),
        ("etl[ B, a_a ]@ ../x", InRepo("etl", ("a-a", "b"), "../x")),
        ("etl[] @ ./x", InRepo("etl", (), "./x")),
        ("etl @ https://h.example", None),
        ("etl[!] @ ./x", None),
        ("etl", None),
    ],
)
def test_an_in_repo_package_is_read(text: str, found: InRepo | None) -> None:
    assert in_repo(text) == found


ENDLESS = ["a" * 4000, "a," * 2000, "a ~" * 1300, "a[" * 2000, "a@" * 2000, "a" + " " * 4000 + "!"]
ENDLESS += ["- '" * 1300, "\"'" * 2000, "a = {b = " + "[" * 4000, "a = {b = " + "{c = " * 800]
CPU_LIMIT = 30  # seconds; all of them together need less than one


def test_no_line_costs_more_than_its_length(tmp_path: Path) -> None:
    """The test runs in a process that the kernel ends at its limit."""
    file = tmp_path / "lines"
    file.write_text("\n".join(ENDLESS))
    code = (
        "import pathlib, resource\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({CPU_LIMIT}, {CPU_LIMIT}))\n"
        "from gitsource.requirement_lines import Kind, advice\n"
        f"for line in pathlib.Path({str(file)!r}).read_text().splitlines():\n"
        "    advice(line, Kind.REQUIREMENT)\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "done\n"
