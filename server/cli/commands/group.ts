import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { printList } from '../list.js';
import { time } from '../output.js';

export function addGroupCommands(program: Command): void {
  const group = program
    .command('group')
    .description('groups of users; granted repositories as @NAME (quorate repo grant)');

  group
    .command('add')
    .argument('<name>', 'a-z 0-9 . _ -')
    .description('add a group')
    .action(async (name: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('POST', '/groups', { name });
      if (terminal.json) return terminal.printJson(field(answer, 'group'));
      terminal.print(`added group ${name}\n`);
      terminal.hint(
        `next: quorate group join ${name} USER, quorate repo grant REPO @${name} write`,
      );
    });

  group
    .command('list')
    .description('list all groups')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/groups',
        rows: 'groups',
        columns: [
          { title: 'NAME', key: 'name' },
          { title: 'MEMBERS', key: 'members', show: (v: unknown) => String(namesIn(v).length) },
          { title: 'CREATED (UTC)', key: 'createdAt', show: time },
        ],
      });
    });

  group
    .command('members')
    .argument('<name>')
    .description('list the users in a group')
    .action(async (name: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const shown = field(await request('GET', `/groups/${encodeURIComponent(name)}`), 'group');
      const members = namesIn(shown['members']);
      if (terminal.json) return terminal.printJson(members);
      terminal.print(members.map((member) => `${member}\n`).join(''));
    });

  group
    .command('remove')
    .argument('<name>')
    .description('remove a group and its grants; the name is not given again')
    .action(async (name: string, _options: object, command: Command) => {
      await deleteAt(command, `/groups/${encodeURIComponent(name)}`, `removed group ${name}`);
    });

  addMemberCommand(group, { verb: 'join', method: 'PUT', help: 'put users into a group' });
  addMemberCommand(group, { verb: 'leave', method: 'DELETE', help: 'take users out of a group' });
}

function addMemberCommand(
  group: Command,
  options: { readonly verb: string; readonly method: 'PUT' | 'DELETE'; readonly help: string },
): void {
  group
    .command(options.verb)
    .argument('<name>')
    .argument('<users...>')
    .description(options.help)
    .action(async (name: string, users: string[], _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      let answer = {};
      for (const user of users) {
        const path = `/groups/${encodeURIComponent(name)}/members/${encodeURIComponent(user)}`;
        answer = field(await request(options.method, path), 'group');
      }
      if (terminal.json) return terminal.printJson(answer);
      const done = options.method === 'PUT' ? 'in' : 'no longer in';
      terminal.print(`${users.join(', ')} ${users.length === 1 ? 'is' : 'are'} ${done} ${name}\n`);
    });
}

function namesIn(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
