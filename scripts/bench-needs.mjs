// bench-needs.mjs NEED...: sees to it that the programs that the benchmarks use are there, like test-needs.mjs for the
// tests. Ends with status 1 after naming what is missing.
import { readFileSync } from 'node:fs';
import { provideNeeds } from './test-needs.mjs';

const known = JSON.parse(readFileSync(new URL('bench-needs.json', import.meta.url), 'utf8'));
const wanted = process.argv.slice(2);
const needs = known.filter(({ need }) => wanted.includes(need));
process.exitCode = provideNeeds({ needs, purpose: 'the benchmarks' }) ? 0 : 1;
