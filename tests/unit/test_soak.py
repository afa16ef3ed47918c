"""The campaign of kills: what is kept of one that was broken off."""

import json

from benchmarks import soak


def test_a_broken_off_campaign_goes_on_behind_its_last_whole_line(tmp_path, monkeypatch):
    results = tmp_path / "kills.jsonl"

    def kill(number):
        victim, how = soak.KILL_TURNS[number % 4]
        return {
            "number": number,
            "victim": victim,
            "signal": how.name,
            "signal_to_gate_ms": 90.0 + number,
            "beat_to_gate_ms": 100.0,
        }

    for number in (0, 2):
        soak.keep(results, kill(number))
    with results.open("a") as file:
        file.write('{"number": 1, "vic')
    asked = []
    monkeypatch.setattr(soak, "_kill", lambda number: asked.append(number) or kill(number))
    rows = soak.kills(0.02, results=results)
    assert sorted(asked) == [1, 3, 4, 5, 6, 7]
    lines = [k for k in results.read_text().splitlines() if k.endswith("}")]
    assert sorted(json.loads(k)["number"] for k in lines) == list(range(8))
    assert [r["value"] for r in rows] == [94.0, 95.0, 96.0, 97.0]
    assert [r["met"] for r in rows] == [True, True, True, True]
    assert soak.kills(0.02, results=results) == rows
    assert len(asked) == 6
