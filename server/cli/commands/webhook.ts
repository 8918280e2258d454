import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { deleteAt } from '../delete.js';
import { allRows, contextOf, field } from '../context.js';
import { readInputText } from '../input-file.js';
import { printList } from '../list.js';
import { duration, facts, plain, table, time } from '../output.js';
import type { Terminal } from '../terminal.js';
import { scoped } from './rule.js';

interface Scoped {
  readonly server?: true;
}

interface SetOptions extends Scoped {
  readonly url?: string;
  readonly events?: string;
}

interface RotateOptions extends Scoped {
  readonly secret?: string;
}

interface AddOptions extends Scoped {
  readonly events: string;
  readonly secret?: string;
}

const forAll = ['--server', 'of all repositories'] as const;
const whose = 'the repository (not with --server)';

/** Longer than an attempt takes by default; the server goes on by itself. */
const testTimeoutMs = 15_000;
const pollMs = 200;

export function addWebhookCommands(program: Command): void {
  const webhook = program
    .command('webhook')
    .description('webhooks: HTTP requests that tell others of pushes and changes');

  webhook
    .command('add')
    .usage('REPO|--server URL [options]')
    .argument('<words...>', `${whose} and the URL`)
    .description('add a webhook; prints its secret, alone on stdout, unless you gave one')
    .option('--events <names>', 'push, create, delete, repository', 'push')
    .option('--secret <file>', 'what requests are signed with, in a file (- for stdin)')
    .option(...forAll)
    .action(add);

  webhook
    .command('list')
    .argument('[repo]')
    .description("list a repository's webhooks, or those of all repositories")
    .option(...forAll)
    .action(async (repo: string | undefined, options: Scoped, command: Command) => {
      const { path } = scoped(repo === undefined ? [] : [repo], options, 0);
      await printList(command, {
        path: `${path}/webhooks`,
        rows: 'webhooks',
        columns: [
          { title: 'ID', key: 'id' },
          { title: 'EVENTS', key: 'events', show: names },
          { title: 'ADDED (UTC)', key: 'createdAt', show: time },
          { title: 'BY', key: 'by' },
          { title: 'URL', key: 'url' },
        ],
      });
    });

  webhook
    .command('set')
    .usage('REPO|--server ID [--url URL] [--events NAMES]')
    .argument('<words...>', `${whose} and the webhook`)
    .description('change where a webhook goes, or what it is told of')
    .option('--url <url>', 'where it goes from now on, also what waits')
    .option('--events <names>', 'all of push, create, delete, repository that it is told of')
    .option(...forAll)
    .action(set);

  webhook
    .command('rotate')
    .usage('REPO|--server ID [--secret FILE]')
    .argument('<words...>', `${whose} and the webhook`)
    .description('sign with a new secret from now on; prints it, alone, unless you gave one')
    .option('--secret <file>', 'the new secret, in a file (- for stdin)')
    .option(...forAll)
    .action(rotate);

  webhook
    .command('remove')
    .usage('REPO|--server ID')
    .argument('<words...>', `${whose} and the webhook`)
    .description('remove a webhook; what it waits for is not sent any more')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { path, rest } = scoped(words, options, 1);
      const [id = ''] = rest;
      await deleteAt(command, pathOfWebhook(path, id), `removed webhook ${id}`);
    });

  webhook
    .command('test')
    .usage('REPO|--server ID')
    .argument('<words...>', `${whose} and the webhook`)
    .description('send a ping, and say how it went')
    .option(...forAll)
    .action(test);

  addDeliveryCommands(webhook);
}

function addDeliveryCommands(webhook: Command): void {
  webhook
    .command('deliveries')
    .usage('REPO|--server ID [DELIVERY]')
    .argument('<words...>', `${whose}, the webhook, and one delivery to show it`)
    .description('list deliveries, newest first: those that wait and the last 100 that ended')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { terminal, request } = contextOf(command);
      const shown = words.length === (options.server === true ? 2 : 3);
      const { path, rest } = scoped(words, options, shown ? 2 : 1);
      const deliveries = `${pathOfWebhook(path, rest[0])}/deliveries`;
      if (shown) {
        const one = await request('GET', `${deliveries}/${encodeURIComponent(rest[1] ?? '')}`);
        return showDelivery(terminal, field(one, 'delivery'));
      }
      const found = await allRows(request, deliveries, 'deliveries');
      if (terminal.json) return terminal.printJson(found);
      const columns = [
        { title: 'DELIVERY', key: 'id' },
        { title: 'EVENT', key: 'event' },
        { title: 'REPOSITORY', key: 'repository' },
        { title: 'STATUS', key: 'status' },
        { title: 'ATTEMPTS', key: 'attempts' },
        { title: 'AT (UTC)', key: 'createdAt', show: time },
        { title: 'LAST ANSWER', key: 'last', show: lastAnswer },
      ];
      terminal.print(table(columns, found));
    });

  webhook
    .command('redeliver')
    .usage('REPO|--server ID DELIVERY')
    .argument('<words...>', `${whose}, the webhook, and the delivery`)
    .description('send a delivery once more; one that waits is tried at once')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { terminal, request } = contextOf(command);
      const { path, rest } = scoped(words, options, 2);
      const delivery = encodeURIComponent(rest[1] ?? '');
      const answer = await request(
        'POST',
        `${pathOfWebhook(path, rest[0])}/deliveries/${delivery}/redeliver`,
      );
      if (terminal.json) return terminal.printJson(field(answer, 'delivery'));
      terminal.print(`queued ${plain(field(answer, 'delivery')['id'])}\n`);
    });
}

async function set(words: string[], options: SetOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const { path, rest } = scoped(words, options, 1);
  if (options.url === undefined && options.events === undefined) {
    throw new CliError('give --url, --events or both', { exitCode: 2 });
  }
  const answer = await request('PATCH', pathOfWebhook(path, rest[0]), {
    ...(options.url === undefined ? {} : { url: options.url }),
    ...(options.events === undefined ? {} : { events: listed(options.events) }),
  });
  const webhook = field(answer, 'webhook');
  if (terminal.json) return terminal.printJson(webhook);
  terminal.print(
    `changed webhook ${plain(webhook['id'])}: ${names(webhook['events'])} to ${plain(webhook['url'])}\n`,
  );
}

async function rotate(words: string[], options: RotateOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const { path, rest } = scoped(words, options, 1);
  const given =
    options.secret === undefined ? undefined : await readSecret(options.secret, terminal);
  const answer = await request(
    'POST',
    `${pathOfWebhook(path, rest[0])}/secret`,
    given === undefined ? {} : { secret: given },
  );
  const webhook = field(answer, 'webhook');
  const { secret } = answer;
  if (terminal.json) {
    return terminal.printJson({ ...webhook, ...(secret === undefined ? {} : { secret }) });
  }
  terminal.hint(`webhook ${plain(webhook['id'])} signs with another secret`);
  if (typeof secret !== 'string') return;
  terminal.hint('which is shown this once:');
  terminal.print(`${secret}\n`);
}

function listed(events: string): readonly string[] {
  return events.split(',').map((name) => name.trim());
}

async function add(words: string[], options: AddOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const { path, rest } = scoped(words, options, 1);
  const given =
    options.secret === undefined ? undefined : await readSecret(options.secret, terminal);
  const answer = await request('POST', `${path}/webhooks`, {
    url: rest[0] ?? '',
    events: listed(options.events),
    ...(given === undefined ? {} : { secret: given }),
  });
  const webhook = field(answer, 'webhook');
  const { secret } = answer;
  if (terminal.json) {
    return terminal.printJson({ ...webhook, ...(secret === undefined ? {} : { secret }) });
  }
  terminal.hint(`added webhook ${plain(webhook['id'])}`);
  if (typeof secret !== 'string') return;
  terminal.hint('its secret, which is shown this once:');
  terminal.print(`${secret}\n`);
}

async function test(words: string[], options: Scoped, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const { path, rest } = scoped(words, options, 1);
  const webhook = pathOfWebhook(path, rest[0]);
  const queued = field(await request('POST', `${webhook}/test`), 'delivery');
  const id = plain(queued['id']);
  let delivery = queued;
  const deadlineMs = performance.now() + testTimeoutMs;
  while (delivery['status'] === 'pending' && performance.now() < deadlineMs) {
    await sleep(pollMs);
    const answer = await request('GET', `${webhook}/deliveries/${encodeURIComponent(id)}`);
    delivery = field(answer, 'delivery');
  }
  if (terminal.json) terminal.printJson(delivery);
  const how = lastAnswer(delivery['last']);
  if (delivery['status'] === 'delivered') {
    if (!terminal.json) terminal.print(`delivered ${id}: ${how}\n`);
    return;
  }
  throw new CliError(
    delivery['status'] === 'pending'
      ? `${id} has no answer yet; see quorate webhook deliveries`
      : `${id} was not delivered: ${how}`,
  );
}

function showDelivery(terminal: Terminal, delivery: Json): void {
  if (terminal.json) return terminal.printJson(delivery);
  const last: Json =
    typeof delivery['last'] === 'object' && delivery['last'] !== null
      ? { ...delivery['last'] }
      : {};
  terminal.print(
    facts([
      ['delivery', delivery['id']],
      ['event', delivery['event']],
      ['repository', delivery['repository']],
      ['status', delivery['status']],
      ['attempts', delivery['attempts']],
      ['created (UTC)', time(delivery['createdAt'])],
      ['next attempt (UTC)', time(delivery['nextAttemptAt'])],
      ['last attempt (UTC)', time(last['at'])],
      ['last answer', lastAnswer(delivery['last'])],
      ['took', duration(last['durationMs'])],
      ['answer body', last['response']],
      ['body', delivery['body']],
    ]),
  );
}

function pathOfWebhook(path: string, id = ''): string {
  return `${path}/webhooks/${encodeURIComponent(id)}`;
}

function names(value: unknown): string {
  return Array.isArray(value) ? value.join(',') : '-';
}

/** `200`, or what went wrong. */
function lastAnswer(value: unknown): string {
  if (typeof value !== 'object' || value === null) return '-';
  const { status, problem, outcome }: Json = { ...value };
  if (outcome === 'delivered') return plain(status);
  return plain(problem ?? outcome);
}

async function readSecret(file: string, terminal: Terminal): Promise<string> {
  return (await readInputText(file, terminal)).trim();
}
