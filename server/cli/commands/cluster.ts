import type { Command } from 'commander';
import { isJson, type Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { contextOf, field } from '../context.js';
import { printList } from '../list.js';
import { facts, plain, size, table, time } from '../output.js';
import { pathOf } from './repo.js';

/** `quorate node ...`: the storage nodes of a cluster. */
export function addNodeCommands(program: Command): void {
  const node = program.command('node').description('storage nodes of a cluster');

  node
    .command('list')
    .description(
      'list the storage nodes: alive, silent (there, and does not answer this server), or away',
    )
    .option('--all', 'also those that were removed, are gone and have no copy any more')
    .action(async ({ all }: { readonly all?: true }, command: Command) => {
      const nodes = await printList(command, {
        path: '/nodes',
        rows: 'nodes',
        shows: (row) => all === true || !isGone(row),
        columns: [
          { title: 'NODE', key: 'nodeId' },
          { title: 'STATE', key: 'alive', show: nodeState },
          { title: 'MARK (UTC)', key: 'mark', show: markSince },
          { title: 'ZONE', key: 'zone' },
          { title: 'WEIGHT', key: 'weight' },
          { title: 'COPIES', key: 'copies' },
          { title: 'USED', key: 'usedBytes', show: size },
          { title: 'CAPACITY', key: 'capacityBytes', show: size },
          { title: 'ADDRESS', key: 'address' },
        ],
      });
      const { terminal, request } = contextOf(command);
      if (terminal.json) return;
      for (const { nodeId } of nodes.filter(stillRuns)) {
        const name = plain(nodeId);
        terminal.hint(
          `${name} was removed and still runs: stop it, or quorate node undrain ${name} takes it back`,
        );
      }
      for (const { nodeId, problem } of nodes) {
        if (typeof problem === 'string') terminal.hint(`${plain(nodeId)}: ${problem}`);
      }
      const few = fewNodes(nodes, await request('GET', '/nodes'));
      if (few !== undefined) terminal.hint(few);
    });

  addMarkCommand(node, {
    verb: 'drain',
    help: 'move everything away from a node, and put nothing new on it',
    done: 'is being drained; quorate node list shows the copies that are left',
  });
  addMarkCommand(node, {
    verb: 'undrain',
    help: 'let a node take repositories again',
    done: 'takes repositories again',
  });
  addRemoveCommand(node);
}

function addRemoveCommand(node: Command): void {
  node
    .command('remove')
    .argument('<node>')
    .description('a node that is not to come back: its copies are made elsewhere at once')
    .option('--force', 'also one that is alive, and was not drained or still has copies')
    .action(async (name: string, options: { readonly force?: true }, command: Command) => {
      const { terminal, request } = contextOf(command);
      const path = `/nodes/${encodeURIComponent(name)}/remove`;
      const answer = await request('POST', path, { force: options.force === true });
      if (terminal.json) return terminal.printJson(field(answer, 'node'));
      terminal.print(`${name} is removed; its copies are made elsewhere\n`);
      await hintAfterMark(command, name);
    });
}

/** What a mark means for the node, and for those that are left. */
async function hintAfterMark(command: Command, name: string): Promise<void> {
  const { terminal, request } = contextOf(command);
  const answer = await request('GET', '/nodes');
  const nodes = objectsIn(answer['nodes']);
  const node = nodes.find(({ nodeId }) => nodeId === name);
  if (node !== undefined && stillRuns(node)) {
    const when = node['copies'] === 0 ? 'now' : 'when quorate node list shows no copies';
    terminal.hint(`${name} still runs: stop it ${when}`);
  }
  const few = fewNodes(nodes, answer);
  if (few !== undefined) terminal.hint(`${few}: copies that have nowhere to go stay`);
}

/** Removed, and nothing of it is left but that it is not to come back. */
function isGone(node: Json): boolean {
  return node['mark'] === 'removed' && node['copies'] === 0 && !stillRuns(node);
}

/** A node that was removed, and runs again, or on. */
function stillRuns({ mark, alive, silent }: Json): boolean {
  return mark === 'removed' && (alive === true || silent === true);
}

function markSince(mark: unknown, { markedAtMs }: Json): string {
  if (typeof mark !== 'string' || typeof markedAtMs !== 'number') return plain(mark);
  return `${mark} ${time(new Date(markedAtMs).toISOString())}`;
}

/** Undefined when as many nodes can take copies as a repository is to have. */
function fewNodes(nodes: readonly Json[], { replicationFactor }: Json): string | undefined {
  const there = nodes.filter((node) => !isGone(node));
  const fit = there.filter(({ alive, mark, problem }) => {
    return alive === true && (mark ?? null) === null && (problem ?? null) === null;
  });
  if (typeof replicationFactor !== 'number' || fit.length >= replicationFactor) return undefined;
  return `${fit.length} of ${there.length} nodes can take copies; fewer than replication.factor (${replicationFactor})`;
}

function addMarkCommand(
  node: Command,
  { verb, help, done }: { readonly verb: string; readonly help: string; readonly done: string },
): void {
  node
    .command(verb)
    .argument('<node>')
    .description(help)
    .action(async (name: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('POST', `/nodes/${encodeURIComponent(name)}/${verb}`);
      if (terminal.json) return terminal.printJson(field(answer, 'node'));
      terminal.print(`${name} ${done}\n`);
      await hintAfterMark(command, name);
    });
}

/** `quorate repo replicas|move`: the copies of a repository. */
export function addReplicaCommands(repo: Command): void {
  repo
    .command('replicas')
    .argument('<name>')
    .description('show the copies of a repository: where they are, and how far')
    .action(async (name: string, _options: object, command: Command) => {
      await printList(command, {
        path: `${pathOf(name)}/replicas`,
        rows: 'replicas',
        columns: [
          { title: 'NODE', key: 'nodeId' },
          { title: 'ROLE', key: 'role' },
          {
            title: 'STATE',
            key: 'alive',
            show: (alive: unknown) => (alive === true ? 'alive' : 'away'),
          },
          { title: 'DECLARED', key: 'declared' },
          { title: 'GENERATION', key: 'generation' },
          { title: 'LAG', key: 'lag' },
          { title: 'SOUND', key: 'sound' },
          { title: 'FROZEN', key: 'frozen' },
        ],
      });
    });

  repo
    .command('move')
    .argument('<name>')
    .description('put a repository on the nodes that you name, or leave it to placement again')
    .option('--to <nodes>', 'comma-separated node names, as many as there are copies')
    .option('--anywhere', 'wherever placement puts it')
    .action(
      async (
        name: string,
        options: { readonly to?: string; readonly anywhere?: true },
        command: Command,
      ) => {
        const { terminal, request } = contextOf(command);
        if ((options.to === undefined) === (options.anywhere === undefined)) {
          throw new CliError('say where to: --to NODE,NODE,NODE, or --anywhere', { exitCode: 2 });
        }
        const nodes = options.to?.split(',') ?? null;
        const answer = await request('POST', `${pathOf(name)}/move`, { nodes });
        if (terminal.json) return terminal.printJson(field(answer, 'repository'));
        terminal.print(`${name} moves; quorate repo replicas ${name} shows how far it is\n`);
      },
    );
}

/** `quorate explain push ID`. */
export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .description('tell what happened')
    .command('push')
    .argument('<id>', 'of a push, from the logs, the audit log or a webhook')
    .description('the life of a push of the last day, step by step')
    .action(async (id: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const push = field(await request('GET', `/pushes/${encodeURIComponent(id)}`), 'push');
      if (terminal.json) return terminal.printJson(push);
      const steps = objectsIn(push['steps']);
      const firstMs = Number(steps[0]?.['atMs'] ?? 0);
      terminal.print(
        facts([
          ['push', push['pushId']],
          ['repository', push['repository']],
          ['repository id', push['repositoryId']],
          ['actor', push['actor']],
          ['front-end', push['frontEnd']],
          ['began (UTC)', new Date(firstMs).toISOString()],
        ]),
      );
      const columns = [
        { title: 'AFTER', key: 'atMs', show: (at: unknown) => `${Number(at) - firstMs} ms` },
        { title: 'STEP', key: 'step' },
        { title: 'NODE', key: 'nodeId' },
        { title: 'DETAIL', key: 'detail' },
      ];
      terminal.print(`\n${table(columns, steps)}`);
    });
}

/** `quorate recover`. */
export function addRecoverCommand(program: Command): void {
  program
    .command('recover')
    .description(
      'after the coordinator was put back to an older copy: what the disks hold beyond it',
    )
    .option('--apply', 'raise the coordinator to what the disks hold, and go on from there')
    .option('--force', 'also when some repositories cannot be: those stay as the coordinator says')
    .action(async (options: { readonly apply?: true; readonly force?: true }, command: Command) => {
      const { terminal, request } = contextOf(command);
      const { apply = false, force = false } = options;
      const answer = await request('POST', '/cluster/recover', { apply, force });
      const recovery = field(answer, 'recovery');
      if (terminal.json) return terminal.printJson(recovery);
      const found = objectsIn(recovery['found']);
      const columns = [
        { title: 'REPOSITORY', key: 'name' },
        { title: 'FOUND', key: 'verdict' },
        { title: 'COORDINATOR', key: 'headGeneration' },
        { title: 'DISKS', key: 'generation' },
      ];
      if (found.length > 0) terminal.print(`${table(columns, found)}\n`);
      const nodes = objectsIn(recovery['nodes']);
      if (nodes.length > 0) terminal.print(`${table(heardColumns, nodes)}\n`);
      terminal.print(
        `${counted(recovery['compared'])} compared, ${found.length} with something to tell\n`,
      );
      terminal.print(`${recoveryVerdict(recovery, found)}\n`);
      for (const hint of recoveryHints(recovery, found)) terminal.hint(hint);
    });
}

function counted(repositories: unknown): string {
  return repositories === 1 ? '1 repository' : `${plain(repositories)} repositories`;
}

/** What `--apply` makes good. */
const raisable: readonly unknown[] = ['behind', 'moved', 'unfinished'];

/** What was done, or is to be done. */
function recoveryVerdict(
  { applied, frozen, restart }: Readonly<Record<string, unknown>>,
  found: readonly Readonly<Record<string, unknown>>[],
): string {
  if (isJson(restart)) return restartWords(restart['members']);
  if (applied === true) return 'recovered; the repositories are served again';
  const others = found.filter(({ verdict }) => !raisable.includes(verdict)).length;
  if (frozen !== null || others < found.length) {
    return others === 0
      ? 'nothing was changed; quorate recover --apply does it'
      : 'nothing was changed; quorate recover --apply does it when nothing but "behind", "moved" and "unfinished" is found, or with --force, which leaves the others as they are';
  }
  return others === 0 ? 'nothing is frozen' : 'nothing can be raised as it is';
}

/** Who was asked: whoever has other nodes knows that these were not. */
const heardColumns = [
  { title: 'NODE', key: 'nodeId' },
  { title: 'COPIES', key: 'copies', show: (copies: unknown) => plain(copies ?? 'no answer') },
];

/** What is not to be overlooked. */
function recoveryHints(
  recovery: Readonly<Record<string, unknown>>,
  found: readonly Readonly<Record<string, unknown>>[],
): readonly string[] {
  const { frozen, nodes, unrecorded } = recovery;
  return [
    ...strayWords(found),
    ...found
      .filter(({ verdict }) => verdict === 'majority-lost')
      .map(
        ({ name }) =>
          `most copies of ${plain(name)} are gone for good, and what is left may lack pushes: ${frozen === null ? '' : '--apply --force goes on without it for now, and then '}quorate repo recover ${plain(name)} goes on from what is left, on an explicit word`,
      ),
    ...objectsIn(nodes)
      .filter(({ copies }) => typeof copies !== 'number')
      .map(
        ({ nodeId, trouble }) =>
          `${plain(nodeId)} does not say what it holds, which might be the latest of anything: ${plain(trouble)}`,
      ),
    ...(Array.isArray(unrecorded) && unrecorded.length > 0
      ? [
          `${counted(unrecorded.length)} on the disks, and unknown to the coordinator: ${some(unrecorded)}; they stay there, and are not served`,
        ]
      : []),
    ...unreadWords(found),
    ...silentWords(frozen, found),
  ];
}

/** Copies that are gone on without, although their node answers; with the first reason that each node gives. */
function unreadWords(found: readonly Readonly<Record<string, unknown>>[]): readonly string[] {
  const byNode = new Map<string, { readonly first: string; readonly count: number }>();
  for (const { name, copies } of found) {
    for (const { silent, nodeId, generation, trouble } of objectsIn(copies)) {
      if (silent === true || typeof generation !== 'number' || typeof trouble !== 'string')
        continue;
      const { first, count } = byNode.get(plain(nodeId)) ?? { count: 0 };
      const told = first ?? `${plain(name)} for one: ${trouble}`;
      byNode.set(plain(nodeId), { first: told, count: count + 1 });
    }
  }
  return [...byNode].map(
    ([node, { first, count }]) =>
      `${node} cannot read its copies of ${counted(count)}, which are filled again from the others, ${first}`,
  );
}

/** Copies that no record names, and that are as far as any that one does. */
function strayWords(found: readonly Readonly<Record<string, unknown>>[]): readonly string[] {
  const byNode = new Map<string, number>();
  for (const { copies, generation } of found) {
    for (const copy of objectsIn(copies)) {
      if (copy['named'] !== false || copy['generation'] !== generation) continue;
      const node = plain(copy['nodeId']);
      byNode.set(node, (byNode.get(node) ?? 0) + 1);
    }
  }
  return [...byNode].map(
    ([node, count]) =>
      `${node} has the latest of ${counted(count)} that the coordinator does not know to be there`,
  );
}

/** The first few of many. */
function some(names: readonly unknown[]): string {
  const shown = names.slice(0, 5).map(plain).join(', ');
  return names.length > 5 ? `${shown}, ...` : shown;
}

/** Who is waited for, with the first reason that is given for each, and what else may be done. */
function silentWords(
  frozen: unknown,
  found: readonly Readonly<Record<string, unknown>>[],
): readonly string[] {
  const troubles = new Map<string, string>();
  for (const { name, copies } of found) {
    for (const { silent, nodeId, trouble } of objectsIn(copies)) {
      if (silent !== true || troubles.has(plain(nodeId))) continue;
      troubles.set(plain(nodeId), `of ${plain(name)}: ${plain(trouble)}`);
    }
  }
  if (troubles.size === 0) return [];
  const otherwise =
    frozen === null
      ? 'quorate node remove NODE for those that will not come back, then quorate recover again'
      : 'those that will not come back can be removed once the rest was recovered with --force';
  return [
    ...[...troubles]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([node, trouble]) => `nothing to go by from ${node}, which might hold more ${trouble}`),
    `start them, or mend what they say; ${otherwise}`,
  ];
}

function restartWords(members: unknown): string {
  const names = Array.isArray(members) ? members.map(String) : [];
  if (names.length === 0) return 'applied; now start this server again';
  return `applied; restart these: ${names.join(', ')}`;
}

function objectsIn(value: unknown): readonly Record<string, unknown>[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((one: unknown) =>
    typeof one === 'object' && one !== null ? [Object.fromEntries(Object.entries(one))] : [],
  );
}

function nodeState(alive: unknown, { silent }: Json): string {
  if (alive === true) return 'alive';
  return silent === true ? 'silent' : 'away';
}
