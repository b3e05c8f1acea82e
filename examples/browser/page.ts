console.log(crossOriginIsolated);
