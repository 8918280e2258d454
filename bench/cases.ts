import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { git } from './commands.js';
import { addOwnCommit, prepareClient, prepareCommits } from './client-repositories.js';
import type { Commits } from './client-repositories.js';
import type { Case, Place, Prepared } from './case.js';
import { branchOfRefs } from './fixtures.js';
import { type LsRefsQuestion, runLsRefsLoad } from './ls-refs.js';
import type { Peer } from './peers/peer.js';

const concurrentClones = 16;
const concurrentPushes = 8;
const lsRefsConnections = 16;

/** Clones into `count` bare repositories; `atOnce` or one after the other. */
function cloneCase(options: { count: number; atOnce: boolean }): Case['prepare'] {
  const { count, atOnce } = options;
  return ({ fixture, directory }) =>
    Promise.resolve((peer, round) => {
      const place = join(directory, `${peer.name}-${round}`);
      const clone = (index: number): Promise<string> =>
        git(['clone', '--quiet', '--bare', peer.url(fixture.name), join(place, String(index))], {
          env: peer.env,
        });
      return {
        before: async () => {
          await mkdir(place);
        },
        timed: async () => {
          const indices = Array.from({ length: count }, (_, index) => index);
          if (atOnce) await Promise.all(indices.map(clone));
          else for (const index of indices) await clone(index);
          return atOnce ? 1 : count;
        },
      };
    });
}

const fetchesPerSample = 3;
/** Jobs of a build fleet that fetch one commit at one moment. */
const equalFetches = 16;
/** Commits that the client of the incremental fetch lacks. */
const missingCommits = 10;

/** Fetches of the last commits into `count` repositories; `atOnce` or one after the other. */
function fetchCase(options: { count: number; atOnce: boolean }): Case['prepare'] {
  const { count, atOnce } = options;
  return async ({ fixture, directory }) => {
    const old = await git(['rev-parse', `HEAD~${missingCommits}`], { cwd: fixture.path });
    const base = join(directory, 'base');
    await git(['init', '--quiet', '--bare', base]);
    await git(['push', '--quiet', base, `${old}:refs/heads/main`], { cwd: fixture.path });
    return (peer, round) => {
      const clients = Array.from({ length: count }, (_, index) =>
        join(directory, `${peer.name}-${round}-${index}`),
      );
      const fetch = (cwd: string): Promise<string> =>
        git(['fetch', '--quiet', peer.url(fixture.name), 'HEAD:refs/heads/main'], {
          cwd,
          env: peer.env,
        });
      return {
        before: async () => {
          for (const [index, client] of clients.entries()) {
            await prepareClient(client, { base, tip: old });
            // As developers have: so that no two of them ask the same, which Quorate would answer once.
            if (!atOnce) await addOwnCommit(client, `${peer.name} ${round} ${index}`);
          }
        },
        timed: async () => {
          if (atOnce) await Promise.all(clients.map(fetch));
          else for (const client of clients) await fetch(client);
          return atOnce ? 1 : count;
        },
      };
    };
  };
}

const oneOfManyRefs = Array.from({ length: 997 }, (_, index): LsRefsQuestion => {
  const branch = branchOfRefs(index * 7919);
  return { prefix: branch, names: branch };
});
const allRefs: readonly LsRefsQuestion[] = [{ names: branchOfRefs(0) }];

function lsRefsCase(questions: readonly LsRefsQuestion[]): Case['prepare'] {
  return ({ fixture, quick }) =>
    Promise.resolve((peer) => ({
      timed: () =>
        runLsRefsLoad({
          url: new URL(peer.url(fixture.name)),
          questions,
          connections: lsRefsConnections,
          durationMs: quick ? 1_000 : 3_000,
        }),
    }));
}

const lsRefsNeeds = {
  impossibleFor: ({ v2Http }: Peer) =>
    v2Http ? undefined : 'no protocol v2 over HTTP connections that stay open',
};

const lsRemotesPerSample = 2;

async function prepareLsRemote({ fixture }: Place): Promise<Prepared> {
  return Promise.resolve((peer) => ({
    timed: async () => {
      for (let i = 0; i < lsRemotesPerSample; i++) {
        await git(['ls-remote', peer.url(fixture.name)], { env: peer.env });
      }
      return lsRemotesPerSample;
    },
  }));
}

const pushesPerSample = 4;

function push(peer: Peer, refspec: string, options: { from: string; to: string }): Promise<string> {
  const args = ['push', '--quiet', peer.url(options.to), refspec];
  return git(args, { cwd: options.from, env: peer.env });
}

async function prepareSmallPush(place: Place): Promise<Prepared> {
  const commits: Commits = await prepareCommits(place, { chains: 1, perRound: pushesPerSample });
  const options = { from: commits.repository, to: place.fixture.name };
  return (peer, round) => ({
    timed: async () => {
      for (const oid of commits.of(0, round)) await push(peer, `${oid}:refs/heads/main`, options);
      return pushesPerSample;
    },
  });
}

async function prepareConcurrentPushes(place: Place): Promise<Prepared> {
  const commits = await prepareCommits(place, { chains: concurrentPushes, perRound: 1 });
  const options = { from: commits.repository, to: place.fixture.name };
  return (peer, round) => ({
    timed: async () => {
      const pushes = Array.from({ length: concurrentPushes }, (_, branch) =>
        push(peer, `${commits.of(branch, round).join('')}:refs/heads/bench/${branch}`, options),
      );
      await Promise.all(pushes);
      return 1;
    },
  });
}

function prepareLargePush({ fixture }: Place): Promise<Prepared> {
  return Promise.resolve((peer, round) => {
    const to = `new-${round}`;
    return {
      before: () => peer.create(to),
      timed: async () => {
        await push(peer, 'HEAD:refs/heads/main', { from: fixture.path, to });
        return 1;
      },
      after: () => peer.remove(to),
    };
  });
}

/** In the order in which they run: those that push come last, as they change the copies that the others read. */
export const cases: readonly Case[] = [
  {
    key: 'clone-small',
    title: 'clone, small',
    fixture: 'small',
    warmUps: 25,
    prepare: cloneCase({ count: 4, atOnce: false }),
  },
  {
    key: 'clone-large',
    title: 'clone, large',
    fixture: 'large',
    heavy: true,
    prepare: cloneCase({ count: 1, atOnce: false }),
  },
  {
    key: 'clone-16',
    title: `${concurrentClones} clones at once`,
    fixture: 'mid',
    heavy: true,
    prepare: cloneCase({ count: concurrentClones, atOnce: true }),
  },
  {
    key: 'fetch',
    title: 'incremental fetch',
    fixture: 'mid',
    warmUps: 15,
    prepare: fetchCase({ count: fetchesPerSample, atOnce: false }),
  },
  {
    key: 'fetch-16',
    title: `${equalFetches} equal fetches at once`,
    fixture: 'mid',
    warmUps: 5,
    prepare: fetchCase({ count: equalFetches, atOnce: true }),
  },
  {
    key: 'ls-refs',
    title: 'ls-refs, 1 of 50,000 refs',
    fixture: 'refs',
    ...lsRefsNeeds,
    prepare: lsRefsCase(oneOfManyRefs),
  },
  {
    key: 'ls-refs-all',
    title: 'ls-refs, all 50,000 refs',
    fixture: 'refs',
    ...lsRefsNeeds,
    prepare: lsRefsCase(allRefs),
  },
  {
    key: 'ls-remote',
    title: 'git ls-remote, 50,000 refs',
    fixture: 'refs',
    prepare: prepareLsRemote,
  },
  {
    key: 'push-small',
    title: 'small push',
    fixture: 'mid',
    warmUps: 15,
    pushes: true,
    prepare: prepareSmallPush,
  },
  {
    key: 'push-8',
    title: `${concurrentPushes} pushes at once`,
    fixture: 'mid',
    warmUps: 15,
    pushes: true,
    prepare: prepareConcurrentPushes,
  },
  {
    key: 'push-large',
    title: 'large push',
    fixture: 'large',
    startsEmpty: true,
    pushes: true,
    heavy: true,
    prepare: prepareLargePush,
  },
];
