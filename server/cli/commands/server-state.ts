import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { printList } from '../list.js';
import type { Json } from '../api-client.js';
import { duration, facts, plain, size, time } from '../output.js';

/** `quorate status`. */
export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('show how the server is')
    .action(async (_options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const status = await request('GET', '/status');
      if (terminal.json) return terminal.printJson(status);
      const storage = field(status, 'storage');
      terminal.print(
        facts([
          ['version', `${plain(status['version'])} (node ${plain(status['node'])})`],
          ['started (UTC)', time(status['startedAt'])],
          ['http', status['httpUrl']],
          ['ssh', status['sshUrl']],
          ['operations', status['opsUrl']],
          ['backend', storage['backend']],
          ['object engine', storage['objectEngine']],
          ['repositories', storage['repositories']],
          ['pushes running', storage['pushesRunning']],
          ['locks', lockText(field(status, 'locks'))],
          ['maintenance queued', storage['maintenanceQueued']],
          ['quarantines', storage['quarantines']],
          ['quotas', quotaText(field(status, 'quotas'))],
          ...clusterFacts(status['cluster']),
          ...Object.entries(field(status, 'notes')),
        ]),
      );
    });
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
    ['repositories without a majority', majorityText(known)],
  ];
}
