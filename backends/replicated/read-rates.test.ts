import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { ReadRates, readRates } from './read-rates.js';
import { WantedReaders } from './wanted-readers.js';

test('what is read often is told by each front-end, summed, and fades', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-rates-'));
  const clock = createManualClock();
  const logger = silentLogger;
  const coordinator = await openEmbeddedCoordinator({ directory, clock, logger });
  const lease = await coordinator.grantLease(60_000);
  const frontEnd = (id: string): ReadRates =>
    new ReadRates({
      coordinator,
      presence: { lease: async () => ({ id, lease: lease.id }) },
      clock,
      logger,
      from: 1,
    });
  const [one, two] = [frontEnd('one'), frontEnd('two')];
  for (let read = 0; read < 50; read++) one.note('hot');
  for (let read = 0; read < 30; read++) two.note('hot');
  for (let read = 0; read < 3; read++) two.note('calm');
  await one.report();
  await two.report();
  assert.deepEqual([...(await readRates(coordinator))], [['hot', 8]]);
  clock.advance(20_000);
  assert.ok(one.rate('hot') < 1 && one.rate('hot') > 0.5);
  await one.report();
  await two.report();
  assert.deepEqual([...(await readRates(coordinator))], []);
  one.note('hot');
  for (let read = 0; read < 50; read++) one.note('hot');
  await one.report();
  assert.equal((await readRates(coordinator)).size, 1);
  await lease.revoke();
  assert.equal((await readRates(coordinator)).size, 0, 'gone with its front-end');
  await coordinator.close();
  await rm(directory, { recursive: true });
});

test('readers are wanted at once, at most so many, and given up only after a calm time', () => {
  const clock = createManualClock();
  const wanted = new WantedReaders({ max: 2, ratePerCopy: 10, coolDownMs: 60_000 }, clock);
  const voters = ['a', 'b', 'c'];
  const of = (count: number): number =>
    wanted.of({ id: 'hot', voters, readers: Array.from({ length: count }) });
  assert.equal(of(0), 0);
  wanted.see(new Map([['hot', 30]]));
  assert.equal(of(0), 0, 'the voters are enough');
  wanted.see(new Map([['hot', 31]]));
  assert.equal(of(0), 1);
  wanted.see(new Map([['hot', 1_000]]));
  assert.equal(of(1), 2);
  wanted.see(new Map());
  assert.equal(of(2), 2);
  clock.advance(59_999);
  assert.equal(of(2), 2);
  wanted.see(new Map([['hot', 50]]));
  assert.equal(of(2), 2, 'busy again: the time begins anew');
  wanted.see(new Map());
  assert.equal(of(2), 2);
  assert.deepEqual(wanted.busy, ['hot'], 'it has to be looked at');
  const deleted = { id: 'deleted', voters, readers: ['r'] };
  assert.equal(wanted.of(deleted), 1);
  wanted.forget('deleted');
  assert.deepEqual(
    wanted.busy,
    ['hot'],
    'what was deleted while it was calm is not looked at for ever',
  );
  clock.advance(60_000);
  assert.equal(of(2), 0);
  assert.equal(of(0), 0);
  assert.deepEqual(wanted.busy, []);
  const off = new WantedReaders({ max: 0, ratePerCopy: 10, coolDownMs: 60_000 }, clock);
  off.see(new Map([['hot', 1_000]]));
  assert.equal(off.of({ id: 'hot', voters, readers: ['r'] }), 0, 'off: at once');
});
