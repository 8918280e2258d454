import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClockDifference } from './clock-difference.js';
import { listeningLogger } from './testing/raw-channel.js';

const hourMs = 3_600_000;

function scene(): { difference: ClockDifference; warnings: string[]; at: (ms: number) => void } {
  const { logger, warnings } = listeningLogger();
  let nowMs = 0;
  const clock = { nowMs: () => nowMs, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  const difference = new ClockDifference({ clock, logger, facts: {} });
  return { difference, warnings, at: (ms) => (nowMs = ms) };
}

test('a clock that is an hour apart is told once, and again after it was right', () => {
  const { difference, warnings, at } = scene();
  at(10);
  for (let n = 0; n < 3; n++) difference.note(hourMs, 0);
  assert.equal(difference.apartMs, hourMs - 5);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? '', /clocks .* are apart: set them right/);
  difference.note(5, 0);
  assert.equal(difference.apartMs, undefined);
  difference.note(-hourMs, 0);
  assert.equal(difference.apartMs, -hourMs - 5);
  assert.equal(warnings.length, 2);
});

test('an answer that took long, seconds, and a node that says nothing are no reason', () => {
  const { difference, warnings, at } = scene();
  at(10);
  difference.note(30_000, 0);
  difference.note(undefined, 0);
  // It was asked, our process or its stood still for an hour, and then the answer was read.
  at(hourMs);
  difference.note(20, 0);
  assert.deepEqual([difference.apartMs, warnings], [undefined, []]);
});
