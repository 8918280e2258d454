import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { printList } from '../list.js';
import { assignments, collect } from './repo.js';

interface SetOptions {
  readonly issuer: string;
  readonly audience: string;
  readonly jwks?: string;
  readonly algorithm: readonly string[];
  readonly claim: readonly string[];
  readonly repo: string;
  readonly level: string;
}

export function addIssuerCommands(program: Command): void {
  const oidc = program
    .command('oidc')
    .description('OpenID Connect tokens of CI services, instead of stored secrets');

  oidc
    .command('set')
    .argument('<name>', 'a name for this trust; one issuer may have several')
    .description('believe tokens of an issuer, and say what they reach')
    .requiredOption('--issuer <url>', 'the tokens` iss, exactly')
    .requiredOption('--audience <audience>', 'what has to be among their aud')
    .option('--claim <name=pattern>', 'a claim that has to match; may be repeated', collect, [])
    .requiredOption('--repo <pattern>', "the repositories that they reach: 'team/*'")
    .option('--level <level>', 'how far: read, write or admin', 'read')
    .option('--jwks <url>', 'where its keys are (default: as its configuration says)')
    .option('--algorithm <name>', 'accepted ones (RS256, ES256, EdDSA); repeated', collect, [])
    .action(async (name: string, options: SetOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('PUT', `/openid-issuers/${encodeURIComponent(name)}`, {
        issuer: options.issuer,
        audience: options.audience,
        claims: assignments(options.claim),
        repositories: options.repo,
        level: options.level,
        ...(options.jwks === undefined ? {} : { jwksUrl: options.jwks }),
        ...(options.algorithm.length === 0 ? {} : { algorithms: options.algorithm }),
      });
      if (terminal.json) return terminal.printJson(field(answer, 'issuer'));
      terminal.print(`tokens of ${options.issuer} may ${options.level} ${options.repo}\n`);
    });

  oidc
    .command('list')
    .description('list whose tokens are believed')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/openid-issuers',
        rows: 'issuers',
        columns: [
          { title: 'NAME', key: 'name' },
          { title: 'ISSUER', key: 'issuer' },
          { title: 'AUDIENCE', key: 'audience' },
          { title: 'CLAIMS', key: 'claims' },
          { title: 'REPOSITORIES', key: 'repositories' },
          { title: 'LEVEL', key: 'level' },
        ],
      });
    });

  oidc
    .command('remove')
    .argument('<name>', 'as in the list')
    .description('believe them no longer')
    .action(async (name: string, _options: object, command: Command) => {
      await deleteAt(command, `/openid-issuers/${encodeURIComponent(name)}`, `removed ${name}`);
    });
}
