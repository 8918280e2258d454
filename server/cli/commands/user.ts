import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { printList } from '../list.js';
import { time } from '../output.js';

export function addUserCommands(program: Command): void {
  const user = program.command('user').description('people who may sign in');

  user
    .command('add')
    .argument('<name>', 'a-z 0-9 . _ -')
    .description('add a user')
    .option('--admin', 'make them a server administrator')
    .option('--no-create', 'do not let them create repositories')
    .action(async (name: string, options: { admin?: true; create: boolean }, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('POST', '/users', {
        name,
        admin: options.admin ?? false,
        canCreate: options.create,
      });
      if (terminal.json) return terminal.printJson(field(answer, 'user'));
      terminal.print(`added user ${name}\n`);
      terminal.hint(`next: quorate token create ${name}, or quorate key add ${name} FILE`);
    });

  user
    .command('list')
    .description('list all users')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/users',
        rows: 'users',
        columns: [
          { title: 'NAME', key: 'name' },
          { title: 'ADMIN', key: 'admin' },
          { title: 'CREATES', key: 'canCreate' },
          { title: 'DISABLED', key: 'disabled' },
          { title: 'CREATED (UTC)', key: 'createdAt', show: time },
        ],
      });
    });

  addSwitch(user, {
    verb: 'disable',
    disabled: true,
    help: 'refuse a user from now on; keys and tokens are kept',
  });
  addSwitch(user, { verb: 'enable', disabled: false, help: 'let a disabled user in again' });
}

function addSwitch(
  user: Command,
  {
    verb,
    disabled,
    help,
  }: { readonly verb: string; readonly disabled: boolean; readonly help: string },
): void {
  user
    .command(verb)
    .argument('<name>')
    .description(help)
    .action(async (name: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const path = `/users/${encodeURIComponent(name)}`;
      const answer = await request('PATCH', path, { disabled });
      if (terminal.json) return terminal.printJson(field(answer, 'user'));
      terminal.print(`${verb}d user ${name}\n`);
    });
}
