// npm run cluster: sees to it that etcd is there, then starts a cluster on this machine.
import { spawnSync } from 'node:child_process';
import { provideNeeds } from './test-needs.mjs';

const needs = [
  { need: 'git', probe: ['git', '--version'], apt: 'git' },
  { need: 'etcd', probe: ['etcd', '--version'], apt: 'etcd-server' },
];
const build = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], {
  stdio: 'inherit',
});
if (build.status !== 0) process.exit(1);
// Who asks for help, or mistypes, is told so before anything is installed.
const { parseOptions } = await import('../dist/e2e/cluster/options.js');
parseOptions(process.argv.slice(2));
if (!provideNeeds({ needs, purpose: 'the cluster' })) process.exit(1);
await import('../dist/e2e/cluster/main.js');
