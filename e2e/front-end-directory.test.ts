import { defineFrontEndSuite } from '../backends/conformance/front-end-suite.js';

defineFrontEndSuite('directory', (scene) => scene.startServer({ backend: 'directory' }));
