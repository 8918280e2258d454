/** `node --import` of a simulating process: everything that is imported after this is simulated. */
import { register } from 'node:module';
import { replaceGlobals } from './globals.js';

const mutation = process.env['QUORATE_MUTATION'];
register('./module-hooks.js', import.meta.url, {
  data: mutation === undefined ? {} : { mutation: JSON.parse(mutation) },
});
replaceGlobals();
