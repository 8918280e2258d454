import { type Command, InvalidArgumentError } from 'commander';
import type { Json } from '../api-client.js';
import { contextOf, field } from '../context.js';
import { plain, table } from '../output.js';
import { pathOf } from './repo.js';

interface RecoverOptions {
  readonly gone?: string;
  readonly acceptLoss?: number;
  readonly keepUnacknowledged?: true;
}

/** `quorate repo recover`: after the majority of a repository's copies was lost for good. */
export function addRepoRecoverCommand(repo: Command): void {
  repo
    .command('recover')
    .argument('<name>')
    .description('what is left of a repository whose copies were lost, and go on from that')
    .option('--gone <nodes>', 'comma-separated nodes whose copies are gone for good')
    .option(
      '--accept-loss <generation>',
      'go on from the copy that is left; its generation, as the report says',
      generationOf,
    )
    .option('--keep-unacknowledged', 'keep pushes as refs that nobody was told were accepted')
    .action(async (name: string, options: RecoverOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('POST', `${pathOf(name)}/recover`, {
        accept: options.acceptLoss ?? null,
        gone: options.gone?.split(',') ?? [],
        keepUnacknowledged: options.keepUnacknowledged ?? false,
      });
      const report = field(answer, 'recovery');
      if (terminal.json) return terminal.printJson(report);
      terminal.print(sentences(name, report, options));
    });
}

function sentences(name: string, report: Json, options: RecoverOptions): string {
  const { generation, recovered, refusal } = report;
  const copies = rowsOf(report['copies']);
  const survivor = rowsOf([report['survivor']])[0];
  const from = survivor?.['generation'];
  const having = copies.filter((copy) => copy['usable'] === true && copy['generation'] === from);
  const columns = [
    { title: 'NODE', key: 'nodeId' },
    { title: 'ROLE', key: 'role' },
    { title: 'STATE', key: 'alive', show: (alive: unknown) => (alive === true ? 'alive' : 'away') },
    { title: 'GENERATION', key: 'generation' },
    { title: 'GONE', key: 'gone' },
    { title: 'FROZEN', key: 'frozen' },
  ];
  const parts = [
    table(columns, copies),
    `\ncommitted: generation ${plain(generation)}\n`,
    survivor === undefined
      ? ''
      : `left:      generation ${plain(from)}, on ${having.map((copy) => plain(copy['nodeId'])).join(', ')}\n`,
    survivor === undefined ? '' : lostLine(Number(from), Number(generation)),
    overruledTable(rowsOf(report['overruled'])),
  ];
  if (typeof recovered === 'number') {
    parts.push(
      `\n${name} goes on as generation ${recovered}; quorate repo replicas ${name} shows how its copies are made\n`,
    );
  } else if (typeof refusal === 'string') parts.push(`\nnothing was changed: ${refusal}\n`);
  else {
    const gone = options.gone === undefined ? '' : ` --gone ${options.gone}`;
    const keep = options.keepUnacknowledged === true ? ' --keep-unacknowledged' : '';
    parts.push(
      `\nnothing was changed; to go on from what is left:\n  quorate repo recover ${name}${gone}${keep} --accept-loss ${plain(from)}\n`,
    );
  }
  return parts.join('');
}

function lostLine(from: number, committed: number): string {
  if (from === committed) return '';
  if (from > committed) {
    return `lost:      what was committed after generation ${from}, if anything was: etcd is an older copy, and does not know\n`;
  }
  const lost =
    from + 1 < committed ? `generations ${from + 1} to ${committed}` : `generation ${committed}`;
  return `lost:      ${lost}, on no copy that answers\n`;
}

/** One line for each ref of each push that is overruled. */
function overruledTable(pushes: readonly Json[]): string {
  const rows = pushes.flatMap((push): Json[] => {
    const { generation, pushId, actor, head } = push;
    const about = { generation: generation ?? 'none', pushId, actor };
    const moved = head === undefined ? [] : [{ ...about, ref: 'HEAD', value: head }];
    if (push['refs'] === undefined) return [{ ...about, ref: 'unknown' }, ...moved];
    const refs = rowsOf(push['refs']).map(({ ref, oid, keptAs }): Json => {
      const value = typeof oid === 'string' ? oid.slice(0, 12) : 'deleted';
      return { ...about, ref, value, keptAs: keptAs ?? (oid === undefined ? '-' : 'LOST') };
    });
    return [...refs, ...moved];
  });
  const columns = [
    { title: 'GENERATION', key: 'generation' },
    { title: 'PUSH', key: 'pushId' },
    { title: 'ACTOR', key: 'actor' },
    { title: 'REF', key: 'ref' },
    { title: 'VALUE', key: 'value' },
    { title: 'KEPT AS', key: 'keptAs' },
  ];
  return rows.length === 0 ? '' : `\noverruled:\n${table(columns, rows)}`;
}

function rowsOf(value: unknown): readonly Json[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((one: unknown) =>
    typeof one === 'object' && one !== null ? [Object.fromEntries(Object.entries(one))] : [],
  );
}

function generationOf(text: string): number {
  const generation = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(generation)) return generation;
  throw new InvalidArgumentError('that is not a generation');
}
