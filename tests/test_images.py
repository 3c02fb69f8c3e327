"""The grammar of image names."""

import pytest

from gyoza.models import ImageName, InvalidImageError, check_image

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "repository", "version"),
    [
        ("python", "docker.io/library/python", "latest"),
        ("python:3.12", "docker.io/library/python", "3.12"),
        ("me/op:V1_a", "docker.io/me/op", "V1_a"),
        ("docker.io/python", "docker.io/library/python", "latest"),
        ("index.docker.io/me/op", "docker.io/me/op", "latest"),
        ("registry-1.docker.io/python", "registry-1.docker.io/python", "latest"),
        ("localhost/a", "localhost/a", "latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
        ("localhost:5000", "docker.io/library/localhost", "5000"),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b", "v1"),
        ("[::1]:5000/a", "[::1]:5000/a", "latest"),
        (f"a/b@{DIGEST}", "docker.io/a/b", DIGEST),
        (f"a/b:1@{DIGEST}", "docker.io/a/b", DIGEST),
        ("me/a-b.c_d__e/f---g", "docker.io/me/a-b.c_d__e/f---g", "latest"),
    ],
)
def test_a_name_means_one_image_of_one_registry(text: str, repository: str, version: str) -> None:
    name = ImageName.parse(text)
    assert (name.repository, name.version) == (repository, version)
    assert check_image(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        ("python:", "no tag after its ':'"),
        ("python:3@", "after its '@' there must be a digest"),
        ("python@sha256:12", "after its '@' there must be a digest"),
        ("Python", "only its tag may have capital letters"),
        ("Me/op", "only its tag may have capital letters"),
        ("Registry.example.org/op", "only its tag may have capital letters"),
        ("x" * 300, "too long"),
        ("a" * 10_000_000 + "-", "too long"),
        ("-v", ""),
        ("a b", ""),
        ("a\n", ""),
        ("a//b", ""),
        ("/a", ""),
        ("a/", ""),
        ("a/../b", ""),
        ("a___b", ""),
        ("a_b.example/op", ""),
        ("a:x:y", ""),
        ("https://example.org/op", ""),
        ("é", ""),
        ("٣", ""),
    ],
)
def test_what_is_no_name_is_told_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        check_image(text)
    assert f"{text[:80]!a} is not the name of an image" in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("text", [DIGEST, "0" * 64])
def test_the_id_of_an_image_is_taken_and_is_no_name(text: str) -> None:
    assert check_image(text) == text
    with pytest.raises(InvalidImageError):
        ImageName.parse(text)
