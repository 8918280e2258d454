import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { CoordinatorMember } from '../../contract/coordinator-members.js';
import { until } from '../../contract/testing/until.js';
import { askMembers } from './ask-members.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import { settingsFor } from './testing/etcd-fixture.js';

describe('each member of etcd, asked by itself', { timeout: 600_000 }, () => {
  let cluster: EtcdCluster;
  before(async () => {
    cluster = await EtcdCluster.start({ members: 3 });
  });
  after(() => cluster.stop());

  /** Of a user whom nobody can sign in without a majority. */
  const ask = (): Promise<readonly CoordinatorMember[]> =>
    askMembers({ ...settingsFor(cluster), auth: { user: 'quorate', password: 'secret' } });

  test('all answer, and one of them leads', async () => {
    await until('all to know of a leader', async () => {
      return (await ask()).every(({ answers, hasLeader }) => answers && hasLeader);
    });
    const members = await ask();
    assert.deepEqual(
      members.map(({ address }) => address),
      cluster.endpoints,
    );
    assert.equal(members.filter(({ leads }) => leads).length, 1);
    assert.ok(members.every(({ problem }) => problem === undefined));
  });

  test('without a majority those that are left answer, and the others are told with the reason', async () => {
    const [left, paused, dead] = [cluster.member(0), cluster.member(1), cluster.member(2)];
    await dead.kill();
    await paused.pause();
    try {
      await until('the one that is left to miss its leader', async () => {
        return (await ask())[0]?.hasLeader === false;
      });
      const [first, second, third] = await ask();
      assert.deepEqual([first?.answers, first?.leads], [true, false]);
      assert.equal(first?.problem, 'etcdserver: no leader');
      assert.deepEqual([second?.answers, third?.answers], [false, false]);
      assert.match(second?.problem ?? '', new RegExp(paused.endpoint));
      assert.equal(third?.problem, `nothing listens on ${dead.endpoint}`);
    } finally {
      paused.resume();
      dead.start();
      await cluster.ready();
    }
    assert.ok(left.running);
  });
});
