import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { printList } from '../list.js';
import { isJson, type Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { duration, facts, plain, size, time } from '../output.js';

/** `quorate status`. Fails when the coordinator does not answer, after it has shown what is known without it. */
export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('show how the server is')
    .action(async (_options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const status = await request('GET', '/status');
      const coordinator = field(status, 'coordinator');
      if (terminal.json) terminal.printJson(status);
      else terminal.print(facts([...serverFacts(status), ...stateFacts(status, coordinator)]));
      if (coordinator['answers'] === false) throw new CliError(plain(coordinator['problem']));
    });
}

type Facts = readonly (readonly [string, unknown])[];

function serverFacts(status: Json): Facts {
  return [
    ['version', `${plain(status['version'])} (node ${plain(status['node'])})`],
    ['started (UTC)', time(status['startedAt'])],
    ['http', status['httpUrl']],
    ['ssh', status['sshUrl']],
    ['operations', status['opsUrl']],
  ];
}

function stateFacts(status: Json, coordinator: Json): Facts {
  const notes = Object.entries(field(status, 'notes'));
  if (coordinator['answers'] !== false) {
    return [...pictureFacts(status), ...etcdFacts(coordinator), ...notes];
  }
  const known = field(status, 'known');
  return [
    ...lostFacts(coordinator),
    ...etcdFacts(coordinator),
    ...knownNodeFacts(listOf(known['nodes'])),
    ...notes,
    ...lastFacts(known['last']),
  ];
}

/** What the coordinator says. */
function pictureFacts(picture: Json): Facts {
  const storage = field(picture, 'storage');
  return [
    ['backend', storage['backend']],
    ['object engine', storage['objectEngine']],
    ['repositories', storage['repositories']],
    ['pushes running', storage['pushesRunning']],
    ['locks', lockText(field(picture, 'locks'))],
    ['maintenance queued', storage['maintenanceQueued']],
    ['quarantines', storage['quarantines']],
    ['quotas', quotaText(field(picture, 'quotas'))],
    ...clusterFacts(picture['cluster']),
  ];
}

function lostFacts({ lostSeconds }: Json): Facts {
  const since = typeof lostSeconds === 'number' ? ` for ${lostSeconds} s` : '';
  return [['coordinator', `does not answer${since}: nothing is committed`]];
}

/** Nothing where it is embedded. */
function etcdFacts(coordinator: Json): Facts {
  const members = listOf(coordinator['members']);
  if (members.length === 0) return [];
  const answering = members.filter(({ answers }) => answers === true).length;
  const isWell = members.every(({ answers, hasLeader, problem }) => {
    return answers === true && hasLeader === true && problem === null;
  });
  return [
    ['etcd members', `${answering} of ${members.length} answer`],
    ...(isWell
      ? []
      : members.map((one) => [`etcd ${plain(one['address'])}`, memberText(one)] as const)),
  ];
}

function memberText({ answers, leads, hasLeader, problem }: Json): string {
  const why = problem === null ? '' : `: ${plain(problem)}`;
  if (answers !== true) return `does not answer${why}`;
  if (hasLeader !== true) return `answers, and knows of no leader${why}`;
  return `answers${leads === true ? ', and leads' : ''}${why}`;
}

function idsOf(nodes: readonly Json[]): readonly unknown[] {
  return nodes.map(({ nodeId }) => nodeId);
}

function knownNodeFacts(nodes: readonly Json[]): Facts {
  if (nodes.length === 0) return [];
  const silent = nodes.filter(({ answers }) => answers !== true);
  const draining = nodes.filter(({ mark }) => mark === 'draining');
  const removed = nodes.filter(({ mark }) => mark === 'removed');
  const text = `${nodes.length - silent.length} of ${nodes.length} answer${named('silent', idsOf(silent))}${named('draining', idsOf(draining))}${named('removed', idsOf(removed))}`;
  return [
    ['storage nodes', text],
    ...nodes
      .filter(({ problem }) => problem !== null)
      .map(({ nodeId, problem }) => [`problem of ${plain(nodeId)}`, problem] as const),
  ];
}

/** The last full picture, if this server was asked for one while the coordinator answered. */
function lastFacts(last: unknown): Facts {
  if (!isJson(last)) return [['before', 'nobody asked this server while the coordinator answered']];
  const ago = `${plain(last['ageSeconds'])} s ago`;
  return [
    ['as it was', `${time(last['at'])} UTC, ${ago}; what follows is of then`],
    ...pictureFacts(last).map(([name, value]) => [`${name}, then`, value] as const),
  ];
}

/** `quorate locks`. */
export function addLocksCommand(program: Command): void {
  program
    .command('locks')
    .description('list the locks that pushes hold or wait for')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/locks',
        rows: 'locks',
        columns: [
          { title: 'SCOPE', key: 'scope' },
          {
            title: 'REPOSITORY',
            key: 'repository',
            show: (name, { repositoryId }) => plain(name ?? repositoryId),
          },
          { title: 'REF', key: 'ref' },
          { title: 'STATE', key: 'state' },
          { title: 'AGE', key: 'ageMs', show: duration },
          { title: 'HOLDER', key: 'holder' },
          { title: 'PUSH', key: 'pushId' },
        ],
      });
    });
}

function lockText(locks: Json): string {
  return `${plain(locks['held'])} held, ${plain(locks['waiting'])} waited for`;
}

function quotaText(quotas: Json): string {
  const promised = `${size(quotas['promisedBytes'])} promised of ${size(quotas['mayPromiseBytes'])}`;
  const near = `${plain(quotas['warning'])} nearly used up, ${plain(quotas['exceeded'])} exceeded`;
  return quotas['set'] === 0 ? 'none' : `${plain(quotas['set'])}, ${near}; ${promised}`;
}

function named(what: string, ids: unknown): string {
  return Array.isArray(ids) && ids.length > 0 ? `; ${what}: ${ids.map(String).join(', ')}` : '';
}

/** Nothing while they are together, as they should be. */
function clockFacts(apart: unknown): readonly (readonly [string, unknown])[] {
  const clocks = typeof apart === 'object' && apart !== null ? Object.entries(apart) : [];
  if (clocks.length === 0) return [];
  const each = clocks.map(([nodeId, ms]) => {
    return `${nodeId} ${Math.round(Math.abs(Number(ms)) / 1_000)} s ${Number(ms) > 0 ? 'ahead' : 'behind'}`;
  });
  return [['clocks apart', `${each.join(', ')} of this server's; set them right (NTP)`]];
}

/** Of each node with which something is wrong, what, and the remedy; in its own words. */
function problemFacts(problems: unknown): readonly (readonly [string, unknown])[] {
  const each = typeof problems === 'object' && problems !== null ? Object.entries(problems) : [];
  return each.map(([nodeId, problem]) => [`problem of ${nodeId}`, problem]);
}

/** Nothing of what is no list. */
function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value : [];
}

/** Settings that front-ends have to have the same, and have not. */
function differenceFacts(differing: unknown): readonly (readonly [string, unknown])[] {
  return listOf(differing).map(({ name, values }: Json) => {
    const each = listOf(values).map(({ value, frontEnds }: Json) => {
      return `${plain(value)} (${Array.isArray(frontEnds) ? frontEnds.map(plain).join(', ') : '-'})`;
    });
    return ['settings differ', `${plain(name)}: ${each.join(', ')}; give all front-ends the same`];
  });
}

/** Copies that could not be filled, one line each. */
function givenUpFacts(fills: unknown): readonly (readonly [string, unknown])[] {
  return listOf(fills).map((fill: Json) => {
    const { repository, nodeId, times, reason } = fill;
    const copy = `${plain(repository)} on ${plain(nodeId)}`;
    return [
      'copy not filled',
      `${copy}: given up (${plain(times)}), ${plain(reason)}; it is tried again`,
    ];
  });
}

/** Copies whose disks were put back, or lost files: nothing while there are none. */
function behindFacts(behind: unknown): readonly (readonly [string, unknown])[] {
  const nodes = typeof behind === 'object' && behind !== null ? Object.entries(behind) : [];
  if (nodes.length === 0) return [];
  const each = nodes.map(([nodeId, copies]) => `${plain(copies)} on ${nodeId}`);
  return [
    [
      'copies put back',
      `${each.join(', ')}: they lack pushes they had, and are filled from others`,
    ],
  ];
}

function fewFacts({ nodesTaking: taking, replicationFactor: factor }: Json): string {
  if (Number(taking) >= Number(factor)) return '';
  return `; ${plain(taking)} can take copies, fewer than replication.factor (${plain(factor)})`;
}

/** How many, and with whose copies they would have one. */
function majorityText(cluster: Json): unknown {
  const { repositoriesWithoutMajority: count, nodesMissedForMajority: nodes } = cluster;
  if (!Array.isArray(nodes) || nodes.length === 0) return count;
  return `${plain(count)}; too few copies for a push at quorum: bring back enough of ${nodes.map(String).join(', ')}`;
}

/** Nodes, zones and repairs, for a member of a cluster. */
function clusterFacts(cluster: unknown): readonly (readonly [string, unknown])[] {
  if (typeof cluster !== 'object' || cluster === null) return [];
  const known: Readonly<Record<string, unknown>> = { ...cluster };
  const list = `${named('away', known['nodesAway'])}${named('silent', known['nodesSilent'])}${named('draining', known['nodesDraining'])}${named('removed and still running', known['nodesRemoved'])}${fewFacts(known)}`;
  return [
    ['storage nodes', `${plain(known['nodesAlive'])} of ${plain(known['nodes'])} alive${list}`],
    ...problemFacts(known['nodeProblems']),
    ...clockFacts(known['clocksApart']),
    ['zones', known['zones']],
    ['repairs', known['repairing']],
    ...differenceFacts(known['settingsDiffer']),
    ...givenUpFacts(known['fillsGivenUp']),
    ['repositories lagging', known['lagging']],
    ...behindFacts(known['copiesBehind']),
    ['repositories without a majority', majorityText(known)],
  ];
}
