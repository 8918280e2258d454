import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { claimForOneStore, joinInsteadOfAlone, type PlacedStore } from './lone-store.js';
import { encodeRepository } from './records.js';
import { plainRecord } from './testing/plain-record.js';

let directory: string;
let coordinator: Coordinator;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-lone-'));
  const logger = silentLogger;
  coordinator = await openEmbeddedCoordinator({ directory, clock: systemClock, logger });
});
afterEach(async () => {
  await coordinator.close();
  await rm(directory, { recursive: true });
});

const storeOf = (digit: string, host: string): PlacedStore => ({
  storeId: digit.repeat(32),
  host,
  directory: '/srv/quorate',
});
const alone = { prefix: 'quorate/', alone: true };
const unasked = { ...alone, alone: false };
const one = storeOf('1', 'one');
const two = storeOf('2', 'two');

const stored = async (): Promise<string> =>
  new TextDecoder().decode((await coordinator.get(keys.loneStore))?.value);

const id = 'a'.repeat(32);

/** A repository that is kept there. */
const put = (nodeId: string, { storeId }: PlacedStore): Promise<unknown> =>
  coordinator.transaction({
    compares: [],
    success: [
      {
        type: 'put',
        key: keys.repo(id),
        value: encodeRepository({
          id,
          name: 'team/app',
          ...plainRecord,
          voters: [{ nodeId, storeId, joinedEpoch: 1 }],
          learners: [],
        }),
      },
    ],
    failure: [],
  });

test('the first store keeps it, and comes again; another is refused and changes nothing', async () => {
  await claimForOneStore(coordinator, one, alone);
  await claimForOneStore(coordinator, one, alone);
  const before = await stored();
  await assert.rejects(claimForOneStore(coordinator, two, alone), {
    code: 'failed-precondition',
    message: /a server that stands alone, in \/srv\/quorate on one: give this one an etcd\.prefix/,
  });
  assert.equal(await stored(), before);
});

test('a server of which nobody says that it is alone claims nothing, until it is known', async () => {
  await assert.rejects(claimForOneStore(coordinator, one, unasked), {
    code: 'failed-precondition',
    message: /--cluster-secret-file .* with --alone; nothing was changed$/,
  });
  assert.equal(await coordinator.get(keys.loneStore), undefined);
  await claimForOneStore(coordinator, one, alone);
  await claimForOneStore(coordinator, one, unasked);
  await claimForOneStore(coordinator, { ...one, host: 'elsewhere' }, unasked);
  await assert.rejects(
    claimForOneStore(coordinator, two, alone),
    /run etcdctl del 'quorate\/cluster\/lone-store'$/,
  );
  // A member that lost its secret.
  await joinInsteadOfAlone(coordinator, one.storeId, alone);
  await assert.rejects(claimForOneStore(coordinator, one, unasked), /with --alone/);
});

test('of two that start at once one is refused', async () => {
  const claims = [one, two].map((own) => claimForOneStore(coordinator, own, alone));
  const outcomes = await Promise.allSettled(claims);
  assert.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
});

test('a store that was moved says where it is now', async () => {
  await claimForOneStore(coordinator, one, alone);
  await claimForOneStore(coordinator, { ...one, host: 'elsewhere' }, alone);
  await assert.rejects(claimForOneStore(coordinator, two, alone), /on elsewhere/);
});

test('it becomes the first member of a cluster, and any other is refused until then', async () => {
  await joinInsteadOfAlone(coordinator, two.storeId, alone);
  await claimForOneStore(coordinator, one, alone);
  for (const storeId of [two.storeId, undefined]) {
    await assert.rejects(joinInsteadOfAlone(coordinator, storeId, alone), {
      code: 'failed-precondition',
      message: /start that one first with the cluster's secret/,
    });
  }
  await joinInsteadOfAlone(coordinator, one.storeId, alone);
  await joinInsteadOfAlone(coordinator, two.storeId, alone);
  await joinInsteadOfAlone(coordinator, undefined, alone);
  // Though none of the members runs, nobody else stands alone; it may do so again itself.
  await assert.rejects(
    claimForOneStore(coordinator, two, alone),
    /was the first member of a cluster, in /,
  );
  await claimForOneStore(coordinator, one, alone);
  await assert.rejects(
    joinInsteadOfAlone(coordinator, two.storeId, alone),
    /that stands alone, in /,
  );
});

test('among copies on storage nodes, though none of them runs, nobody stands alone', async () => {
  await put('storage-1', two);
  await assert.rejects(claimForOneStore(coordinator, one, alone), {
    code: 'failed-precondition',
    message: /a cluster's: team\/app is on the storage node storage-1, which is not running/,
  });
  assert.equal(await coordinator.get(keys.loneStore), undefined);
  // A cluster that is no more, of which this was the last member.
  await put('storage-1', one);
  await assert.rejects(claimForOneStore(coordinator, one, unasked), /with --alone/);
  await claimForOneStore(coordinator, one, alone);
});

test('a server that has stood alone since before it was asked for is not asked', async () => {
  await put('local', one);
  await claimForOneStore(coordinator, one, unasked);
  assert.match(await stored(), /srv/);
});
