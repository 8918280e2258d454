import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkPushes } from './checker/check-pushes.js';
import { Gate } from './checker/gate.js';
import { createGitClient, createRawClient } from './checker/push-clients.js';
import type { PushClient } from './checker/push-clients.js';
import { PushJournal } from './checker/push-journal.js';
import { PushPlanner } from './checker/push-plan.js';
import { Seeded, countFrom, seedFrom } from './checker/seeded.js';
import { Observer } from './checker/observer.js';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';

/* Of this server nothing is believed but what its clients were told, what git says of its files, and its refs. */

const app = 'team/app';

test('kill -9 in a loop during pushes loses nothing acknowledged', async (t) => {
  const kills = countFrom('CRASH_KILLS', 100);
  const random = new Seeded(seedFrom('CRASH_SEED'));
  const scene = await createScene(t);
  const server = await scene.startServer();
  const journal = new PushJournal();
  const refusals = new Map<string, number>();
  const clients = await makeClients({ scene, server, random, journal, refusals });
  const gate = new Gate();
  const stopping = new AbortController();
  const working = Promise.all(
    clients.map(async (client) => {
      while (!stopping.signal.aborted) await gate.run(() => client.push());
    }),
  );
  // Looked at below; until then a failure must not end the process.
  working.catch(() => undefined);
  const agent = new Agent({ keepAlive: true });
  const observer = new Observer({ scene, server, agent });
  const repositories = (): string[] => [
    ...new Set(clients.flatMap(({ planner }) => planner.repositories)),
  ];

  try {
    let before = await observer.refs(repositories());
    let killed = 0;
    for (let round = 1; killed < kills; round += 1) {
      gate.open();
      // So many updates are acknowledged first, however slow the machine is; then at any moment.
      const wanted = journal.totals.acknowledged + random.between(0, 20);
      await waitFor('pushes', () => journal.totals.acknowledged >= wanted);
      await sleep(random.between(0, 60));
      gate.close();
      await kill(server, random);
      killed += 1;
      while (killed < kills && random.chance(0.3)) {
        server.relaunch();
        await sleep(random.between(0, 450));
        await kill(server, random);
        killed += 1;
      }
      await gate.empty();
      await server.relaunch().ready();
      const pushes = journal.take();
      const after = await observer.refs(repositories());
      assert.deepEqual(checkPushes(before, pushes, after), [], `round ${round}`);
      await observer.checkStore({
        after,
        pushes,
        fsck: round % 10 === 0 ? 'connectivity' : 'none',
      });
      for (const { planner } of clients) planner.learn(after);
      before = after;
    }
    await observer.checkStore({ after: before, pushes: [], fsck: 'full' });
    const { pushes, acknowledged, refused, unknown } = journal.totals;
    console.log(
      `${killed} kills, ${repositories().length} repositories, ${pushes} pushes; refs: ` +
        `${acknowledged} acknowledged, ${refused} refused, ${unknown} without a verdict`,
      refusals,
    );
    assert.ok(acknowledged > kills, 'hardly anything was pushed');
  } finally {
    stopping.abort();
    gate.open();
    await working;
    for (const client of clients) client.close();
    agent.destroy();
  }
});

/** Half the time everything dies at once, half the time the children have to find out by themselves. */
async function kill(server: ServerProcess, random: Seeded): Promise<void> {
  if (random.chance(0.5)) await server.killTree();
  else await server.kill('SIGKILL');
}

async function makeClients({
  scene,
  server,
  random,
  journal,
  refusals,
}: {
  scene: Scene;
  server: ServerProcess;
  random: Seeded;
  journal: PushJournal;
  refusals: Map<string, number>;
}): Promise<readonly PushClient[]> {
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const sshEnvironment = await key.environment(server);
  const options = (name: string, races: boolean) => ({
    name,
    journal,
    planner: new PushPlanner({
      client: name,
      random: new Seeded(random.between(0, 2 ** 31)),
      repository: app,
      races,
      maxNewRepositories: 3,
    }),
    urlOf: (repository: string) => server.httpUrl(repository),
    refused: (reason: string) => {
      const kind = reason.replace(/\b[0-9a-f]{8,40}\b/g, '<oid>');
      refusals.set(kind, (refusals.get(kind) ?? 0) + 1);
    },
  });
  const urlOf = (repository: string): string => server.sshUrl(repository);
  return [
    createRawClient(options('raw1', true)),
    createRawClient(options('raw2', true)),
    createRawClient(options('raw3', true)),
    await createGitClient({ ...options('git1', false), scene }),
    await createGitClient({ ...options('git2', false), scene }),
    await createGitClient({ ...options('ssh1', false), scene, env: sshEnvironment, urlOf }),
  ];
}
