// npm run cluster: sees to it that etcd is there, then starts a cluster on this machine.
import { spawnSync } from 'node:child_process';
import { provideNeeds } from './test-needs.mjs';

const needs = [
  { need: 'git', probe: ['git', '--version'], apt: 'git' },
  { need: 'etcd', probe: ['etcd', '--version'], apt: 'etcd-server' },
];
if (!provideNeeds({ needs, purpose: 'the cluster' })) process.exit(1);
const build = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], {
  stdio: 'inherit',
});
if (build.status !== 0) process.exit(1);
await import('../dist/e2e/cluster/main.js');
